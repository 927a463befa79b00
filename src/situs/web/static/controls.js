// The toolbar, the slice slider, the line below the picture, and the keys.

import { make } from "./findings.js";
import { MASKS, TOOLS } from "./stage.js";
import { t } from "./texts.js";
import { AXIAL, WINDOWS } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const LETTERS = ["LR", "PA", "IS"]; // of the patient, towards smaller and larger millimetres
const TOOL_KEYS = { v: "look", p: "point", b: "box", u: "brush" };

export class Controls {
  /** @param acts {undo, finishBrush, nextLesion, canUndo, isBrushing} */
  constructor(viewer, stage, acts) {
    Object.assign(this, { viewer, stage, acts });
    const names = [...Object.keys(WINDOWS), "own"];
    $("window").replaceChildren(...names.map((name) => make("option", { value: name }, t(`window_${name}`))));
    $("masks").replaceChildren(...MASKS.map((name) => make("option", { value: name }, t(`masks_${name}`))));
    for (const input of this.toolInputs()) input.addEventListener("change", () => this.setTool(input.value));
    $("stage").setAttribute("aria-label", t("viewer_label"));
    const on = (id, name, act) => $(id).addEventListener(name, act);
    on("window", "change", () => this.setWindow($("window").value));
    on("radius-input", "input", () => this.setRadius(Number($("radius-input").value)));
    on("next-lesion", "click", () => acts.finishBrush());
    on("undo", "click", () => acts.undo());
    on("masks", "change", () => this.setMasks($("masks").value));
    on("zoom-in", "click", () => viewer.zoom(1.4));
    on("zoom-out", "click", () => viewer.zoom(1 / 1.4));
    on("zoom-reset", "click", () => viewer.resetZoom());
    on("slice", "input", () => this.goToSlice(Number($("slice").value)));
    on("open-help", "click", () => $("help").showModal());
    document.addEventListener("keydown", (event) => this.key(event));
  }

  toolInputs() {
    return document.querySelectorAll('input[name="tool"]');
  }

  // What the user sets.

  setTool(tool) {
    for (const input of this.toolInputs()) input.checked = input.value === tool;
    this.stage.setTool(tool);
    if (tool !== "brush") this.acts.finishBrush();
    const range = TOOLS[tool];
    if (range) {
      Object.assign($("radius-input"), { min: range.least, max: range.most });
      $("radius-input").value = this.stage.radius[tool];
    }
    this.refresh();
  }

  setRadius(radius) {
    const { tool } = this.stage;
    if (!TOOLS[tool] || this.acts.isBrushing()) return;
    this.stage.radius[tool] = Math.min(Math.max(radius, TOOLS[tool].least), TOOLS[tool].most);
    $("radius-input").value = this.stage.radius[tool];
    this.refresh();
    this.viewer.draw();
  }

  setWindow(name) {
    if (name in WINDOWS) this.viewer.setWindow(WINDOWS[name]);
    this.refreshWindow();
  }

  setMasks(name) {
    $("masks").value = name;
    this.stage.setMasks(name);
  }

  goToSlice(z) {
    const [x, y] = this.viewer.voxelOf(this.viewer.crosshair);
    this.viewer.goTo(this.viewer.centreOf([x, y, z]));
    this.viewer.plane = AXIAL;
    this.refreshPlace();
  }

  key(event) {
    const typing = event.target.closest?.("input:not([type=radio], [type=checkbox], [type=range]), select, textarea, dialog");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "?") return $("help").showModal();
    if (!this.viewer.volume) return;
    const act = this.actOf(event.key, event.target.type === "range");
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** @param slider whether a slider has the focus; it keeps the keys of its own */
  actOf(key, slider) {
    const windows = Object.keys(WINDOWS);
    if (windows[Number(key) - 1]) return () => this.setWindow(windows[Number(key) - 1]);
    if (key in TOOL_KEYS) return () => this.setTool(TOOL_KEYS[key]);
    const scroll = (step) => () => {
      this.viewer.scroll(this.viewer.plane, step);
      this.refreshPlace();
    };
    const resize = (step) => () => this.setRadius(this.stage.radius[this.stage.tool] + step);
    return {
      PageUp: slider ? undefined : scroll(1),
      PageDown: slider ? undefined : scroll(-1),
      n: () => this.acts.nextLesion(1),
      N: () => this.acts.nextLesion(-1),
      "[": resize(-0.5),
      "]": resize(0.5),
      o: () => this.setMasks(MASKS[(MASKS.indexOf(this.stage.masks) + 1) % MASKS.length]),
      "+": () => this.viewer.zoom(1.4),
      "=": () => this.viewer.zoom(1.4),
      "-": () => this.viewer.zoom(1 / 1.4),
      0: () => this.viewer.resetZoom(),
      z: () => this.acts.undo(),
      d: () => this.acts.finishBrush(),
    }[key];
  }

  // What is shown.

  scanChanged(slices) {
    this.slices = slices;
    $("slice").max = this.viewer.dims[2] - 1;
    this.refreshWindow();
    this.refreshPlace();
  }

  refresh() {
    const { tool } = this.stage;
    $("hint").textContent = t(`hint_${tool}`);
    $("radius").hidden = !TOOLS[tool];
    $("radius-input").disabled = this.acts.isBrushing();
    if (TOOLS[tool]) $("radius").querySelector("output").textContent = t("radius_value", { number: this.stage.radius[tool] });
    $("next-lesion").hidden = tool !== "brush" || !this.acts.isBrushing();
    $("undo").disabled = !this.acts.canUndo();
    if (this.viewer.volume) this.refreshPlace();
  }

  refreshWindow() {
    const { width, level } = this.viewer.window;
    const name = Object.keys(WINDOWS).find((key) => WINDOWS[key].width === width && WINDOWS[key].level === level);
    $("window").value = name ?? "own";
    $("window-value").textContent = t("window_value", { width: Math.round(width), level: Math.round(level) });
  }

  refreshPlace() {
    const { viewer } = this;
    const z = viewer.voxelOf(viewer.crosshair)[2];
    // The viewer gets a scan of uneven slices on even levels, which have numbers of their own.
    const key = viewer.dims[2] === this.slices ? "slice_value" : "level_value";
    const words = t(key, { slice: viewer.storedSlice(z), last: viewer.dims[2] - 1 });
    $("slice").value = z;
    $("slice").setAttribute("aria-valuetext", words);
    $("slice-value").textContent = words;
    const [x, y, up] = viewer.mmOf(viewer.crosshair).map((v, axis) => `${LETTERS[axis][v < 0 ? 0 : 1]} ${Math.abs(v).toFixed(0)}`);
    const density = t("density", { number: Math.round(viewer.hounsfield()) });
    $("place").textContent = `${t("place", { x, y, z: up })} · ${density}`;
  }
}
