// The page: what is open, what was marked, and which lesion is selected.

import * as api from "./api.js";
import { askSeries, askToken, chosenFiles, droppedFiles, saveBlob, showPrintable } from "./browser.js";
import { Controls } from "./controls.js";
import { certaintyOf, drawFinding, drawList, drawPairs, make, showInList, sideOf, siteOf } from "./findings.js";
import { Labels } from "./outlines.js";
import { showReferences } from "./references.js";
import { Stage } from "./stage.js";
import { fillTexts, loadTexts, t } from "./texts.js";
import { readLabels, Viewer } from "./viewer.js";
import { announce, busy, calm, fail, run } from "./work.js";

const SAVED_KEY = "situs.page";
const $ = (id) => document.getElementById(id);

const state = {
  scan: null, // what the server said of the scan
  name: "",
  groups: [], // {kind, name, drawn, roi, document, labels}: the regions of a file, or all shapes drawn here
  shapes: [], // drawn here, as the server takes them
  history: [], // earlier `shapes`
  brushing: false, // whether the next stroke belongs to the last shape
  selected: null, // {group, index}
};
let viewer;
let stage;
let controls;
let started; // a promise: the viewer can draw

// The scan.

async function open(ask, name) {
  calm();
  let scan;
  try {
    scan = await ask();
  } catch (error) {
    if (error.status !== 409 || !error.body.series) throw error;
    const series = await askSeries(error.body.series);
    if (series === null) return;
    scan = await ask(series);
  }
  const old = state.scan;
  await show(scan, name);
  if (old) api.dropScan(old.id);
}

async function show(scan, name) {
  busy(t("busy_image"));
  const [image] = await Promise.all([api.getImage(scan.id), started]);
  for (const id of ["bar", "hint", "stage", "foot", "scan-details"]) $(id).hidden = false;
  $("empty").hidden = true;
  viewer.resize();
  await viewer.show(image);
  Object.assign(state, { scan, name, groups: [], shapes: [], history: [], brushing: false, selected: null });
  $("add-regions").disabled = false;
  drawScan();
  controls.scanChanged(scan.slices);
  refresh();
  announce(t("announce_scan", { name, count: scan.slices }));
}

function drawScan() {
  const { scan, name } = state;
  const pairs = [
    ["scan", name],
    ["voxels", scan.shape.join(" x ")],
    ["pixel_spacing", t("mm_pair", { first: scan.voxel_mm[0].toFixed(2), second: scan.voxel_mm[1].toFixed(2) })],
    ["slice_distance", t("mm", { number: scan.voxel_mm[2].toFixed(2) })],
  ];
  const notes = scan.notes.length
    ? make("ul", { lang: "en" }, ...scan.notes.map((note) => make("li", {}, note)))
    : make("p", {}, t("assumed_nothing"));
  $("scan-details").lastElementChild.replaceChildren(drawPairs(pairs), make("h3", {}, t("assumed")), notes);
}

const openFiles = (files) =>
  files.length && run("busy_upload", () => open((series) => api.openScan(files, series), nameOf(files)));

const nameOf = (files) =>
  files.length > 1 ? files[0].webkitRelativePath.split("/")[0] || files[0].name : files[0].name;

function openExample() {
  run("busy_upload", async () => {
    await open(api.openExample, t("example"));
    await addGroup("example", t("group_example"), () => api.addExampleRegions(state.scan.id));
    selectLesion(state.groups[0], 0);
  });
}

// Regions and their findings.

async function addGroup(kind, name, ask) {
  busy(t("busy_regions"));
  const group = { kind, name, drawn: kind === "drawn", roi: (await ask()).id };
  const progress = ({ done, total }) => busy(t("busy_label"), done, total);
  busy(t("busy_label"));
  const [mask, document] = await Promise.all([
    api.getMask(state.scan.id, group.roi).then(readLabels),
    api.label(state.scan.id, group.roi, progress),
  ]);
  Object.assign(group, { labels: new Labels(mask), document });
  const old = state.groups.findIndex((other) => other.drawn && group.drawn);
  if (old < 0) state.groups.push(group);
  else state.groups[old] = group;
  return group;
}

const addFiles = (files) =>
  files.length &&
  run("busy_regions", async () => {
    calm();
    const name = nameOf(files);
    const group = await addGroup("file", name, () => api.addRegions(state.scan.id, files));
    selectLesion(group, 0);
  });

/** Replace the shapes that are drawn here, and name them. */
function setShapes(shapes, { keep = true, select = shapes.length } = {}) {
  const before = state.shapes;
  if (keep) state.history.push(before);
  state.shapes = shapes;
  return run("busy_label", async () => {
    calm();
    try {
      await labelShapes(select);
    } catch (error) {
      // What the server did not take is not kept.
      state.shapes = before;
      state.brushing = false;
      if (keep) state.history.pop();
      throw error;
    } finally {
      stage.waiting = [];
      refresh();
    }
  });
}

async function labelShapes(select) {
  const shapes = state.shapes;
  if (!shapes.length) {
    state.groups = state.groups.filter((group) => !group.drawn);
    state.selected = null;
    announce(t("announce_removed"));
    return;
  }
  const group = await addGroup("drawn", t("group_drawn"), () => api.addShapes(state.scan.id, shapes));
  const index = group.document.findings.findIndex((finding) => finding.roi_value === select);
  selectLesion(group, Math.max(index, 0), false);
}

function addShape(shape) {
  state.brushing = false;
  stage.waiting = [shape];
  setShapes([...state.shapes, shape]);
}

function addStroke(shape) {
  const last = state.brushing ? state.shapes.at(-1) : null;
  const shapes = last ? state.shapes.slice(0, -1) : state.shapes;
  const points = [...(last?.brush.points ?? []), ...shape.brush.points];
  state.brushing = true;
  stage.waiting = [...stage.waiting, shape];
  setShapes([...shapes, { brush: { radius_mm: last?.brush.radius_mm ?? shape.brush.radius_mm, points } }]);
}

function finishBrush() {
  state.brushing = false;
  refresh();
}

function undo() {
  if (!state.history.length) return;
  state.brushing = false;
  setShapes(state.history.pop(), { keep: false });
}

function removeLesion(group, index) {
  const number = group.document.findings[index].roi_value;
  setShapes(state.shapes.filter((_, n) => n !== number - 1));
}

function removeGroup(group) {
  if (group.drawn) return setShapes([]);
  state.groups = state.groups.filter((other) => other !== group);
  if (state.selected?.group === group) state.selected = null;
  announce(t("announce_removed"));
  refresh();
}

// The selected lesion.

function selectLesion(group, index, go = true) {
  const finding = group.document.findings[index];
  if (!finding) return refresh();
  state.selected = { group, index };
  $("panel").scrollTop = 0; // the heading of the finding is seen there
  const centre = go && group.labels.centre(index + 1);
  if (centre) viewer.goTo(viewer.centreOf(centre));
  refresh();
  const words = { number: index + 1, site: siteOf(finding), side: sideOf(finding), certainty: certaintyOf(finding) };
  announce(t("announce", words));
}

function selectAt(voxel) {
  for (const group of state.groups) {
    const label = group.labels.at(voxel);
    if (label) return selectLesion(group, label - 1, false);
  }
}

function nextLesion(step) {
  const all = state.groups.flatMap((group) => group.document.findings.map((_, index) => ({ group, index })));
  if (!all.length) return;
  const { selected } = state;
  const now = all.findIndex(({ group, index }) => selected?.group === group && selected.index === index);
  const { group, index } = all[(now + step + all.length) % all.length];
  selectLesion(group, index);
}

// What is shown.

function refresh() {
  const inList = $("lesion-list").contains(document.activeElement);
  $("no-lesions").hidden = state.groups.length > 0;
  const acts = { select: selectLesion, remove: removeLesion, removeGroup };
  $("lesion-list").replaceChildren(...drawList(state.groups, state.selected, acts));
  const current = $("lesion-list").querySelector('[aria-current="true"]');
  if (current) showInList($("lesion-list"), current);
  if (inList) current?.focus();
  drawSelected();
  controls.refresh();
  viewer.draw();
  save();
}

function drawSelected() {
  const { selected, scan } = state;
  const nothing = make("p", { class: "faint" }, t("finding_none"));
  if (!selected) return $("finding").replaceChildren(nothing);
  const { group, index } = selected;
  const acts = {
    save: (name) => run("busy_report", async () => saveBlob(await fileOf(group, name), `findings${name}`)),
    print: () => showPrintable(() => fileOf(group, ".html"), (task) => run("busy_report", task)),
  };
  const parts = drawFinding(group.document.findings[index], index + 1, scan.slices - 1, acts);
  $("finding").replaceChildren(...parts.filter(Boolean));
  drawReferences(group, index);
}

const fileOf = (group, name) => api.getFindingFile(state.scan.id, group.document.id, name);

async function drawReferences(group, index) {
  const { comparison } = group.document.findings[index];
  const figure = $("finding").querySelector(".references");
  if (!comparison.length) return;
  group.pictures ??= new Map();
  if (!group.pictures.has(index)) {
    const picture = fileOf(group, `/references/${index + 1}.png`).then(URL.createObjectURL, () => null);
    group.pictures.set(index, picture);
  }
  const source = await group.pictures.get(index);
  if (source) showReferences(figure, comparison, source);
}

// A reload finds the scan again, as long as the server keeps it.

function save() {
  const groups = state.groups.filter((group) => !group.drawn).map(({ kind, name, roi }) => ({ kind, name, roi }));
  const { scan, name, shapes } = state;
  sessionStorage.setItem(SAVED_KEY, JSON.stringify({ scan, name, shapes, groups }));
}

async function restore() {
  const saved = JSON.parse(sessionStorage.getItem(SAVED_KEY) ?? "{}");
  if (!saved.scan) return;
  await run("busy_image", async () => {
    try {
      await show(saved.scan, saved.name);
    } catch (error) {
      sessionStorage.removeItem(SAVED_KEY);
      if (error.status !== 404) throw error;
      return;
    }
    for (const { kind, name, roi } of saved.groups) await addGroup(kind, name, async () => ({ id: roi }));
    state.shapes = saved.shapes;
    if (saved.shapes.length) await labelShapes(saved.shapes.length);
    else if (state.groups.length) selectLesion(state.groups[0], 0);
  });
}

async function start() {
  try {
    await loadTexts();
    fillTexts();
    api.takeTokenFromAddress();
    viewer = new Viewer($("canvas"), () => stage?.render());
    const marks = () =>
      state.groups.map((group) => ({
        labels: group.labels,
        selected: state.selected?.group === group ? state.selected.index + 1 : 0,
      }));
    const hears = {
      shape: addShape,
      stroke: addStroke,
      select: selectAt,
      moved: () => controls.refreshPlace(),
      window: () => controls.refreshWindow(),
    };
    stage = new Stage($("stage"), viewer, hears, marks);
    const acts = { undo, finishBrush, nextLesion, canUndo: () => state.history.length > 0, isBrushing: () => state.brushing };
    controls = new Controls(viewer, stage, acts);
    chosenFiles({ openFiles, addFiles, openExample });
    droppedFiles({ openFiles, addFiles, hasScan: () => state.scan !== null });
    if (api.needsToken()) await askToken(false);
  } catch (error) {
    fail(error);
    return;
  }
  // The page can be used; WebGL takes a second more without a GPU.
  const painted = new Promise((done) => setTimeout(done));
  started = painted.then(() => viewer.start()).catch(() => {
    throw new api.ApiError(t("error_webgl"));
  });
  started.catch(fail);
  if (await api.leaveDuplicate()) sessionStorage.removeItem(SAVED_KEY);
  document.documentElement.dataset.ready = "true";
  await restore();
}

start();
