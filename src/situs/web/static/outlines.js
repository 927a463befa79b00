// Outlines of lesions on a slice: every edge between a voxel of the lesion and one that is not of it.

/** What the page keeps of a mask: its labels, and the box of each label in voxels along right, anterior, superior. */
export class Labels {
  constructor({ dims, values }) {
    this.dims = dims;
    this.values = values;
    this.boxes = new Map();
    const [nx, ny] = dims;
    for (let n = 0; n < values.length; n++) {
      const label = values[n];
      if (!label) continue;
      const voxel = [n % nx, Math.floor(n / nx) % ny, Math.floor(n / (nx * ny))];
      const box = this.boxes.get(label) ?? { low: [...voxel], high: [...voxel], counts: new Map() };
      for (let a = 0; a < 3; a++) {
        box.low[a] = Math.min(box.low[a], voxel[a]);
        box.high[a] = Math.max(box.high[a], voxel[a]);
      }
      box.counts.set(voxel[2], (box.counts.get(voxel[2]) ?? 0) + 1);
      this.boxes.set(label, box);
    }
  }

  at([x, y, z]) {
    return this.values[x + this.dims[0] * (y + this.dims[1] * z)] ?? 0;
  }

  /** The voxel of a lesion nearest to its centre, on its largest axial slice; null if the mask lacks it. */
  centre(label) {
    const box = this.boxes.get(label);
    if (!box) return null;
    const z = [...box.counts].reduce((best, next) => (next[1] > best[1] ? next : best))[0];
    const voxels = [];
    for (let y = box.low[1]; y <= box.high[1]; y++) {
      for (let x = box.low[0]; x <= box.high[0]; x++) if (this.at([x, y, z]) === label) voxels.push([x, y, z]);
    }
    const mean = [0, 1].map((a) => voxels.reduce((sum, v) => sum + v[a], 0) / voxels.length);
    const off = (v) => (v[0] - mean[0]) ** 2 + (v[1] - mean[1]) ** 2;
    return voxels.reduce((best, v) => (off(v) < off(best) ? v : best));
  }

  /** The labels that a slice meets: axis 0 to 2 is the one across it, number its voxel along that axis. */
  *on(axis, number) {
    for (const [label, box] of this.boxes) if (box.low[axis] <= number && number <= box.high[axis]) yield label;
  }
}

/** The edges and the area of a label on a slice as paths of SVG, and the point of its upper left; null without.
 *  @param axes of the slice: across the picture, down the picture, through it
 *  @param px where a corner (in voxels along the first two axes) lies */
export function tracePaths(labels, label, [u, v, w], number, px) {
  const { low, high } = labels.boxes.get(label);
  const voxel = [0, 0, 0];
  voxel[w] = number;
  const holds = (i, j) => {
    if (i < low[u] || i > high[u] || j < low[v] || j > high[v]) return false;
    voxel[u] = i;
    voxel[v] = j;
    return labels.at(voxel) === label;
  };
  const point = (i, j) => px(i, j).map((p) => p.toFixed(1)).join(" ");
  let edges = "";
  let area = "";
  let corner = null;
  for (let j = low[v]; j <= high[v] + 1; j++) {
    let start = null; // of a run of voxels
    let edge = null; // of a run of edges along u
    for (let i = low[u]; i <= high[u] + 1; i++) {
      const here = holds(i, j);
      if (here && start === null) start = i;
      if (!here && start !== null) {
        area += `M${point(start, j)}L${point(i, j)}L${point(i, j + 1)}L${point(start, j + 1)}Z`;
        start = null;
      }
      if (here !== holds(i - 1, j)) edges += `M${point(i, j)}L${point(i, j + 1)}`;
      if (here !== holds(i, j - 1)) edge ??= i;
      else if (edge !== null) {
        edges += `M${point(edge, j)}L${point(i, j)}`;
        edge = null;
      }
      if (here) {
        const [x, y] = px(i + 0.5, j + 0.5);
        if (!corner || x + y < corner[0] + corner[1]) corner = [x, y];
      }
    }
    if (edge !== null) edges += `M${point(edge, j)}L${point(high[u] + 1, j)}`;
  }
  return corner && { edges, area, corner };
}
