// What lies over the picture: crosshair, letters of the patient, outlines, and the tools that mark a lesion.

import { tracePaths } from "./outlines.js";
import { t } from "./texts.js";
import { AXIAL, PLANES, SAGITTAL } from "./viewer.js";

const SVG = "http://www.w3.org/2000/svg";
export const TOOLS = {
  look: null,
  point: { radius: 3, least: 1, most: 20 },
  box: null,
  brush: { radius: 4, least: 1, most: 20 },
};
export const MASKS = ["filled", "outlined", "hidden"]; // how lesions are drawn
const GAP_PX = 9; // of the crosshair
const LEAST_DRAG_PX = 5; // a shorter one is a click
const WINDOW_PER_PX = 1.5; // HU

export class Stage {
  /** @param root the element that holds canvas and SVG
   *  @param viewer the Viewer
   *  @param hears {shape(shape), stroke(brush), select(label), moved(), window()}
   *  @param marks () => [{labels, selected, first}], the masks to outline */
  constructor(root, viewer, hears, marks) {
    this.root = root;
    this.svg = root.querySelector("svg");
    this.viewer = viewer;
    this.hears = hears;
    this.marks = marks;
    this.tool = "look";
    this.radius = { point: TOOLS.point.radius, brush: TOOLS.brush.radius };
    this.masks = MASKS[0];
    this.drag = null; // {kind, tile, start, end, points}
    this.corner = null; // of a box by keyboard: its first corner, frac
    this.waiting = []; // shapes that the server is still naming
    this.hover = null; // {point, tile}
    const on = (name, act, options) => this.svg.addEventListener(name, (event) => act.call(this, event), options);
    on("pointerdown", this.press);
    on("pointermove", this.follow);
    on("pointerup", this.release);
    on("pointercancel", () => this.abandon());
    on("pointerleave", () => this.setHover(null));
    on("wheel", this.wheel, { passive: false });
    on("contextmenu", (event) => event.preventDefault());
    root.addEventListener("keydown", (event) => this.key(event));
  }

  setTool(tool) {
    this.tool = tool;
    this.abandon();
    this.root.dataset.tool = tool;
  }

  setMasks(masks) {
    this.masks = masks;
    this.viewer.draw();
  }

  abandon() {
    this.drag = null;
    this.corner = null;
    this.viewer.draw();
  }

  // Pointer.

  place(event) {
    const box = this.svg.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  press(event) {
    if (!this.viewer.volume) return;
    const start = this.place(event);
    const tile = this.viewer.tileAt(start);
    if (tile < 0) return;
    event.preventDefault();
    this.root.focus({ preventScroll: true });
    this.svg.setPointerCapture(event.pointerId);
    this.viewer.plane = this.viewer.planeOf(tile);
    const kind = event.button === 2 ? "window" : this.tool;
    this.drag = { kind, tile, start, end: start, points: [], window: this.viewer.window };
    if (kind === "look") this.lookAt(start, tile);
    if (kind === "brush") this.paint(start);
    this.viewer.draw();
  }

  follow(event) {
    const point = this.place(event);
    const { drag } = this;
    if (!drag) return this.setHover(point);
    drag.end = point;
    if (drag.kind === "look") this.lookAt(point, drag.tile);
    if (drag.kind === "window") {
      const [dx, dy] = [point[0] - drag.start[0], point[1] - drag.start[1]];
      const { width, level } = drag.window;
      this.viewer.setWindow({ width: width + WINDOW_PER_PX * dx, level: level - WINDOW_PER_PX * dy });
      this.hears.window();
    }
    if (drag.kind === "brush") this.paint(point);
    this.setHover(point);
  }

  release(event) {
    const { drag } = this;
    if (!drag) return;
    this.drag = null;
    const end = this.place(event);
    const moved = Math.hypot(end[0] - drag.start[0], end[1] - drag.start[1]) >= LEAST_DRAG_PX;
    const frac = this.viewer.fracAt(end, drag.tile);
    if (drag.kind === "look" && !moved && frac) this.hears.select(this.viewer.voxelOf(frac));
    if (drag.kind === "point" && frac) this.mark(frac);
    if (drag.kind === "box" && moved) this.markBox(drag);
    if (drag.kind === "brush" && drag.points.length) this.hears.stroke(this.brush(drag.points));
    this.viewer.draw();
  }

  wheel(event) {
    const tile = this.viewer.volume ? this.viewer.tileAt(this.place(event)) : -1;
    if (tile < 0) return;
    event.preventDefault();
    if (event.ctrlKey) return this.viewer.zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15);
    this.viewer.plane = this.viewer.planeOf(tile);
    this.viewer.scroll(this.viewer.plane, event.deltaY < 0 ? 1 : -1);
    this.hears.moved();
  }

  setHover(point) {
    this.hover = point && this.viewer.volume ? { point, tile: this.viewer.tileAt(point) } : null;
    if (this.tool !== "look") this.viewer.draw();
  }

  lookAt(point, tile) {
    const frac = this.viewer.fracAt(point, tile);
    if (!frac) return;
    this.viewer.goTo(frac);
    this.hears.moved();
  }

  // Keyboard: the tool is used at the crosshair.

  key(event) {
    if (!this.viewer.volume || event.ctrlKey || event.metaKey || event.altKey) return;
    const sideways = this.viewer.plane === SAGITTAL ? [0, -1, 0] : [-1, 0, 0];
    const upwards = this.viewer.plane === AXIAL ? [0, 1, 0] : [0, 0, 1];
    const away = (steps) => steps.map((step) => -step);
    const steps = {
      ArrowRight: sideways,
      ArrowLeft: away(sideways),
      ArrowUp: upwards,
      ArrowDown: away(upwards),
    }[event.key];
    if (steps) {
      this.viewer.move(steps);
      this.hears.moved();
    } else if (event.key === "Enter") this.useAtCrosshair();
    else if (event.key === "Escape") this.abandon();
    else return;
    event.preventDefault();
  }

  useAtCrosshair() {
    const frac = this.viewer.crosshair;
    if (this.tool === "look") this.hears.select(this.viewer.voxelOf(frac));
    if (this.tool === "point") this.mark(frac);
    if (this.tool === "brush") this.hears.stroke(this.brush([this.viewer.mmOf(frac)]));
    if (this.tool === "box") {
      if (this.corner) {
        const tile = this.viewer.tiles().find(({ plane }) => plane === this.viewer.plane);
        this.markBox({ tile: tile.number, start: tile.px(this.corner), end: tile.px(frac) });
        this.corner = null;
      } else this.corner = frac;
    }
    this.viewer.draw();
  }

  // Shapes, in patient millimetres.

  mark(frac) {
    this.viewer.goTo(frac);
    this.hears.shape({ point: this.viewer.mmOf(frac), radius_mm: this.radius.point });
  }

  /** A box around what was drawn on one slice. Its third side is the shorter of the two. */
  markBox({ tile, start, end }) {
    const [a, b] = [start, end].map((point) => this.viewer.fracAt(point, tile, false));
    const centre = a.map((f, axis) => (f + b[axis]) / 2);
    const [from, to] = [this.viewer.mmOf(a), this.viewer.mmOf(b)];
    const across = 2 - this.viewer.planeOf(tile);
    const sides = from.map((v, axis) => (axis === across ? Infinity : Math.abs(to[axis] - v)));
    sides[across] = Math.min(...sides);
    const middle = this.viewer.mmOf(centre);
    const corners = [-0.5, 0.5].map((half) => middle.map((v, axis) => v + half * sides[axis]));
    this.viewer.goTo(centre);
    this.hears.shape({ box: corners });
  }

  brush(points) {
    return { brush: { radius_mm: this.radius.brush, points } };
  }

  /** Add points up to this one to the stroke, at most half a radius apart. */
  paint(point) {
    const { drag } = this;
    const frac = this.viewer.fracAt(point, drag.tile);
    if (!frac) return;
    const mm = this.viewer.mmOf(frac);
    const last = drag.points.at(-1);
    const length = last ? Math.hypot(...mm.map((v, axis) => v - last[axis])) : 0;
    const count = last ? Math.floor(length / (this.radius.brush / 2)) : 1;
    for (let n = 1; n <= count; n++) {
      drag.points.push(last ? mm.map((v, axis) => last[axis] + ((v - last[axis]) * n) / count) : mm);
    }
  }

  // Drawing.

  render() {
    const parts = [];
    for (const tile of this.viewer.tiles()) {
      const group = element("g", {});
      const clip = `inset-${tile.number}`;
      const [x, y, width, height] = tile.area;
      const clipPath = element("clipPath", { id: clip });
      clipPath.append(element("rect", { x, y, width, height }));
      group.append(clipPath);
      const inner = element("g", { "clip-path": `url(#${clip})` });
      if (this.masks !== "hidden") inner.append(...this.drawMarks(tile));
      inner.append(...this.drawCrosshair(tile), ...this.drawShapes(tile), ...this.drawLetters(tile));
      group.append(inner, element("rect", { x, y, width, height, class: "frame" }));
      parts.push(group);
    }
    this.svg.replaceChildren(...parts);
  }

  drawMarks(tile) {
    const [u, v, w] = tile.axes;
    const { dims } = this.viewer;
    const number = this.viewer.voxelOf(this.viewer.crosshair)[w];
    const parts = [];
    const corner = [0, 0, 0];
    const px = (i, j) => {
      corner[u] = i / dims[u];
      corner[v] = j / dims[v];
      return tile.px(corner);
    };
    for (const { labels, selected } of this.marks()) {
      for (const label of labels.on(w, number)) {
        const paths = tracePaths(labels, label, tile.axes, number, px);
        if (!paths) continue;
        const name = label === selected ? "lesion selected" : "lesion";
        const [x, y] = paths.corner;
        if (this.masks === "filled") parts.push(element("path", { d: paths.area, class: `${name} area` }));
        parts.push(
          element("path", { d: paths.edges, class: `${name} edge` }),
          element("text", { x: x - 6, y: y - 6, class: `${name} number` }, label),
        );
      }
    }
    return parts;
  }

  drawCrosshair(tile) {
    const [x, y] = tile.px(this.viewer.crosshair);
    const [left, top, width, height] = tile.area;
    const lines = [
      [left, y, x - GAP_PX, y],
      [x + GAP_PX, y, left + width, y],
      [x, top, x, y - GAP_PX],
      [x, y + GAP_PX, x, top + height],
    ];
    return lines.map(([x1, y1, x2, y2]) => element("line", { x1, y1, x2, y2, class: "crosshair" }));
  }

  drawLetters(tile) {
    const [left, top, width, height] = tile.area;
    const [[west, east], [north, south]] = tile.ends;
    const middle = [left + width / 2, top + height / 2];
    const letter = (x, y, text, anchor = "middle") =>
      element("text", { x, y, class: "letter", "text-anchor": anchor }, text);
    return [
      letter(left + 8, middle[1] + 6, west, "start"),
      letter(left + width - 8, middle[1] + 6, east, "end"),
      letter(middle[0], top + 20, north),
      letter(middle[0], top + height - 9, south),
      element("text", { x: left + 8, y: top + 18, class: "plane" }, t(`plane_${PLANES[tile.plane]}`)),
    ];
  }

  drawShapes(tile) {
    const parts = [];
    const ball = (mm, radius, name) => {
      const [cx, cy] = tile.px(this.viewer.fracOf(mm));
      return element("circle", { cx, cy, r: radius * tile.perMm, class: name });
    };
    for (const shape of this.waiting) {
      if (tile.plane !== this.viewer.plane) continue;
      if (shape.point) parts.push(ball(shape.point, shape.radius_mm, "draft waiting"));
      if (shape.brush) parts.push(this.drawStroke(tile, shape.brush, "stroke waiting"));
      if (shape.box) parts.push(...drawBox(...shape.box.map((mm) => tile.px(this.viewer.fracOf(mm))), "draft waiting"));
    }
    const { drag, hover } = this;
    if (drag?.tile === tile.number) {
      if (drag.kind === "box") parts.push(...drawBox(drag.start, drag.end, "draft"));
      if (drag.kind === "brush") {
        parts.push(this.drawStroke(tile, { radius_mm: this.radius.brush, points: drag.points }, "stroke"));
      }
    }
    if (this.corner && tile.plane === this.viewer.plane) {
      parts.push(...drawBox(tile.px(this.corner), tile.px(this.viewer.crosshair), "draft"));
    }
    const radius = this.radius[this.tool];
    if (radius && hover?.tile === tile.number) {
      const [cx, cy] = hover.point;
      parts.push(element("circle", { cx, cy, r: radius * tile.perMm, class: "draft" }));
    }
    return parts;
  }

  drawStroke(tile, { radius_mm: radius, points }, name) {
    const places = points.map((mm) => tile.px(this.viewer.fracOf(mm)).map((p) => p.toFixed(1)).join(" "));
    const d = `M${places.join("L")}${places.length === 1 ? "h0.01" : ""}`;
    return element("path", { d, class: name, "stroke-width": 2 * radius * tile.perMm });
  }
}

function drawBox([x1, y1], [x2, y2], name) {
  const [x, y, width, height] = [Math.min(x1, x2), Math.min(y1, y2), Math.abs(x2 - x1), Math.abs(y2 - y1)];
  return [
    element("rect", { x, y, width, height, class: name }),
    element("ellipse", { cx: x + width / 2, cy: y + height / 2, rx: width / 2, ry: height / 2, class: `${name} inner` }),
  ];
}

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
