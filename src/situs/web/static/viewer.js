// The scan in three planes: NiiVue draws the voxels, this module knows which place of the patient lies where.
//
// "mm" is RAS+ patient millimetres, "frac" NiiVue's 0 to 1 along right, anterior and superior, "px" CSS pixels of
// the stage. Planes have NiiVue's numbers. The patient's right is on the left of axial and coronal pictures.

export const AXIAL = 0;
export const CORONAL = 1;
export const SAGITTAL = 2;
export const PLANES = ["axial", "coronal", "sagittal"];

export const WINDOWS = {
  brain: { width: 80, level: 40 },
  subdural: { width: 240, level: 80 },
  stroke: { width: 40, level: 40 },
  soft: { width: 400, level: 40 },
  bone: { width: 2500, level: 480 },
};

const LAYOUTS = {
  wide: [
    { sliceType: AXIAL, position: [0, 0, 0.62, 1] },
    { sliceType: CORONAL, position: [0.62, 0, 0.38, 0.5] },
    { sliceType: SAGITTAL, position: [0.62, 0.5, 0.38, 0.5] },
  ],
  tall: [
    { sliceType: AXIAL, position: [0, 0, 1, 0.64] },
    { sliceType: CORONAL, position: [0, 0.64, 0.5, 0.36] },
    { sliceType: SAGITTAL, position: [0.5, 0.64, 0.5, 0.36] },
  ],
};
const MOST_ZOOM = 8;

export class Viewer {
  /** @param canvas the canvas to draw on; its parent gives the size
   *  @param onDraw called after every drawing */
  constructor(canvas, onDraw) {
    this.canvas = canvas;
    this.onDraw = onDraw;
    this.volume = null;
    this.plane = AXIAL; // the plane that was used last
    this.window = { ...WINDOWS.brain };
    this.pending = false;
    this.nv = new niivue.Niivue({
      backColor: [0, 0, 0, 1],
      show3Dcrosshair: false,
      crosshairWidth: 0,
      isOrientationTextVisible: false,
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      multiplanarShowRender: 0,
      dragAndDropEnabled: false,
      isResizeCanvas: false,
      loadingText: "",
      logLevel: "error",
    });
  }

  async start() {
    await this.nv.attachToCanvas(this.canvas, false);
    this.canvas.tabIndex = -1; // the stage around it has the focus
    new ResizeObserver(() => this.resize()).observe(this.canvas.parentElement);
    this.resize();
  }

  /** Show a NIfTI file. */
  async show(buffer) {
    const image = await readImage(buffer, "scan.nii.gz");
    for (const old of [...this.nv.volumes]) this.nv.removeVolume(old);
    this.nv.addVolume(image);
    this.volume = image;
    this.dims = image.dimsRAS.slice(1, 4);
    this.plane = AXIAL;
    this.goTo([0.5, 0.5, 0.5]);
    this.window = { ...WINDOWS.brain }; // readImage has set it
    this.resetZoom();
  }

  clear() {
    for (const old of [...this.nv.volumes]) this.nv.removeVolume(old);
    this.volume = null;
    this.draw();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    const scale = window.devicePixelRatio || 1;
    this.nv.uiData.dpr = scale;
    this.canvas.width = Math.max(1, Math.round(width * scale));
    this.canvas.height = Math.max(1, Math.round(height * scale));
    this.layout = width > height * 1.1 ? LAYOUTS.wide : LAYOUTS.tall;
    this.nv.setCustomLayout(this.layout);
    this.draw();
  }

  /** Draw once, before the next picture of the screen. */
  draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.nv.drawScene();
      this.onDraw();
    });
  }

  setWindow({ width, level }) {
    this.window = { width: Math.min(Math.max(width, 1), 4000), level: Math.min(Math.max(level, -1000), 3000) };
    if (!this.volume) return;
    this.volume.cal_min = this.window.level - this.window.width / 2;
    this.volume.cal_max = this.window.level + this.window.width / 2;
    this.nv.updateGLVolume();
    this.draw();
  }

  // Places.

  get crosshair() {
    return [...this.nv.scene.crosshairPos];
  }

  mmOf(frac) {
    return [...this.nv.frac2mm(frac, 0, true)].slice(0, 3);
  }

  fracOf(mm) {
    return [...this.nv.mm2frac(mm, 0, true)];
  }

  /** The voxel that holds a frac, counted along right, anterior, superior. */
  voxelOf(frac) {
    return frac.map((f, axis) => Math.min(Math.max(Math.floor(f * this.dims[axis]), 0), this.dims[axis] - 1));
  }

  centreOf(voxel) {
    return voxel.map((v, axis) => (v + 0.5) / this.dims[axis]);
  }

  /** The number of an axial slice as the scan stores it, of its number from the feet up; and back. */
  storedSlice(z) {
    return this.volume.permRAS[2] < 0 ? this.dims[2] - 1 - z : z;
  }

  hounsfield() {
    const [x, y, z] = this.voxelOf(this.crosshair);
    const { img2RASstart: start, img2RASstep: step, hdr, img } = this.volume;
    const raw = img[start[0] + x * step[0] + start[1] + y * step[1] + start[2] + z * step[2]];
    return raw * (hdr.scl_slope || 1) + hdr.scl_inter;
  }

  /** The number of the tile under a point, -1 for none. */
  tileAt([x, y]) {
    const scale = this.nv.uiData.dpr;
    return this.nv.tileIndex(x * scale, y * scale);
  }

  planeOf(tile) {
    return this.nv.screenSlices[tile].axCorSag;
  }

  /** The frac of a point of the stage on the slice that a tile shows.
   *  @param inside null for points outside the scan, instead of the nearest within */
  fracAt(point, tile, inside = true) {
    const frac = this.tiles()[tile].frac(point);
    if (inside && frac.some((f) => f < 0 || f > 1)) return null;
    return frac.map((f) => Math.min(Math.max(f, 0), 1));
  }

  /** Every tile with its area of the stage, and the way between fracs and pixels of its plane. */
  tiles() {
    if (!this.volume) return [];
    const scale = this.nv.uiData.dpr;
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    return this.nv.screenSlices.map((slice, number) => {
      const [left, top, w, h] = slice.leftTopWidthHeight.map((v) => v / scale);
      const at = (x, y) => [...this.nv.screenXY2TextureFrac(x * scale, y * scale, number, false)];
      // NiiVue answers within the picture only: two points there give the line that it lies on.
      const [one, other] = [at(left + w / 4, top + h / 4), at(left + (3 * w) / 4, top + (3 * h) / 4)];
      const [u, v] = [[0, 1], [0, 2], [1, 2]][slice.axCorSag]; // the axes of the plane
      const perX = (other[u] - one[u]) / (w / 2);
      const perY = (other[v] - one[v]) / (h / 2);
      const frac = ([x, y]) => {
        const found = this.crosshair;
        found[u] = one[u] + (x - left - w / 4) * perX;
        found[v] = one[v] + (y - top - h / 4) * perY;
        return found;
      };
      const [corner, right, bottom] = [[left, top], [left + w, top], [left, top + h]].map((p) => this.mmOf(frac(p)));
      const area = this.layout.find((view) => view.sliceType === slice.axCorSag).position;
      return {
        number,
        plane: slice.axCorSag,
        axes: [u, v, 3 - u - v],
        area: [area[0] * width, area[1] * height, area[2] * width, area[3] * height],
        perMm: w / distance(corner, right),
        frac,
        px: (place) => [left + w / 4 + (place[u] - one[u]) / perX, top + h / 4 + (place[v] - one[v]) / perY],
        ends: [towards(corner, right), towards(corner, bottom)],
      };
    });
  }

  // Moves.

  /** Move the crosshair to the centre of the voxel at a frac: what is marked lies on a slice, not between two. */
  goTo(frac) {
    this.nv.scene.crosshairPos = this.centreOf(this.voxelOf(frac));
    this.draw();
  }

  /** Move the crosshair by whole voxels along right, anterior, superior. */
  move(steps) {
    const voxel = this.voxelOf(this.crosshair).map((v, a) => Math.min(Math.max(v + steps[a], 0), this.dims[a] - 1));
    this.goTo(this.centreOf(voxel));
  }

  /** Next slice of a plane. */
  scroll(plane, step) {
    const steps = [0, 0, 0];
    steps[2 - plane] = step;
    this.move(steps);
  }

  zoom(factor) {
    const pan = [...this.nv.scene.pan2Dxyzmm];
    const zoom = Math.min(Math.max(pan[3] * factor, 1), MOST_ZOOM);
    if (zoom === 1) return this.resetZoom();
    // The crosshair stays where it is on the screen.
    const place = this.nv.frac2mm(this.crosshair);
    for (let axis = 0; axis < 3; axis++) pan[axis] += (pan[3] - zoom) * place[axis];
    this.nv.scene.pan2Dxyzmm = [pan[0], pan[1], pan[2], zoom];
    this.draw();
  }

  resetZoom() {
    this.nv.scene.pan2Dxyzmm = [0, 0, 0, 1];
    this.draw();
  }
}

/** Labels of a NIfTI mask along right, anterior, superior, x fastest. */
export async function readLabels(buffer) {
  const image = await readImage(buffer, "mask.nii.gz");
  return { dims: image.dimsRAS.slice(1, 4), values: image.img2RAS() };
}

function readImage(buffer, name) {
  const { width, level } = WINDOWS.brain;
  const range = { cal_min: level - width / 2, cal_max: level + width / 2 };
  return niivue.NVImage.loadFromUrl({ url: buffer, name, colormap: "gray", ...range });
}

function distance(a, b) {
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

/** The letters of the patient at both ends of a way: where it comes from, and where it goes to. */
function towards(from, to) {
  const way = to.map((v, axis) => v - from[axis]);
  const axis = way.map(Math.abs).indexOf(Math.max(...way.map(Math.abs)));
  const [minus, plus] = ["LR", "PA", "IS"][axis];
  return way[axis] > 0 ? [minus, plus] : [plus, minus];
}
