// Every word of the page. Names of sites and sides, and the words that the HTML report has too, come from the
// report's catalogue, which the server gives as /static/report.json.

const own = {
  page_title: "situs",
  tagline: "Sites of lesions in head CT",

  open_scan: "Open scan",
  open_folder: "Open folder",
  add_regions: "Add regions",
  example: "Example",
  help: "Keys and help",
  close: "Close",
  cancel: "Cancel",

  drop_title: "Drop a head CT here",
  drop_formats: "NIfTI, NRRD, MetaImage, DICOM files, a DICOM folder, or a zip of one",
  choose_files: "Choose files",
  choose_folder: "Choose a folder",
  try_example: "Try the example",
  steps: "How it works",
  step_open: "Open a head CT.",
  step_mark: "Mark a lesion: click it, draw a box, paint it, or add a file of regions.",
  step_read: "Read its site and side, and why they are sure or not.",
  drop_private: "The scan goes to the situs server of this page and nowhere else.",
  drop_scan: "Open as a scan",
  drop_regions: "Add as regions of this scan",

  viewer: "Viewer",
  viewer_label: "Scan in three planes. Arrow keys move the crosshair, Page Up and Page Down change the slice, Enter uses the tool at the crosshair.",
  tools: "Tool",
  tool_look: "Look",
  tool_point: "Point",
  tool_box: "Box",
  tool_brush: "Brush",
  hint_look: "Click to move the crosshair, or on a lesion to select it. Drag with the right button to change the window.",
  hint_point: "Click in a lesion, or press Enter at the crosshair. A ball of this radius is named.",
  hint_box: "Draw a box around a lesion, or press Enter at two corners. The ellipsoid in it is named. Its depth is its shorter side.",
  hint_brush: "Paint a lesion, on several slices if need be. Every stroke belongs to it until you press “Next lesion”.",
  radius: "Radius",
  radius_value: "{number} mm",
  next_lesion: "Next lesion",
  undo: "Undo",
  window: "Window",
  window_brain: "Brain",
  window_subdural: "Subdural",
  window_stroke: "Stroke",
  window_soft: "Soft tissue",
  window_bone: "Bone",
  window_own: "Own",
  window_value: "W {width} L {level}",
  masks: "Masks",
  masks_filled: "Filled",
  masks_outlined: "Outlined",
  masks_hidden: "Hidden",
  zoom_in: "Zoom in",
  zoom_out: "Zoom out",
  zoom_reset: "Fit the whole slice",
  zoom_fit: "Fit",
  slice: "Axial slice",
  slice_value: "Slice {slice} of 0 to {last}",
  level_value: "Level {slice} of 0 to {last} (uneven slices)",
  plane_axial: "Axial",
  plane_coronal: "Coronal",
  plane_sagittal: "Sagittal",
  convention: "Left and right are the patient’s. The patient’s right is on the left of axial and coronal pictures.",
  place: "{x} {y} {z} mm",
  density: "{number} HU",

  lesions_none: "No lesion yet. Pick Point, Box or Brush and mark one, or add a file of regions.",
  group_drawn: "Drawn here",
  group_example: "Lesions of the example",
  remove: "Remove",
  remove_group: "Remove {name}",
  remove_lesion: "Remove lesion {number}",
  lesion: "Lesion",
  finding_none: "Select a lesion to read its site.",
  finding: "Finding",
  why: "Why it is not sure",
  all_sites: "Show all 15 sites",
  fewer_sites: "Show fewer sites",
  enlarge: "Show larger",
  references_alt: "References to compare with, from left to right: {list}. Each slice has its region outlined.",
  share_short: "Share",
  score_caption: "Relation scores and shares",
  scan_details: "Scan",
  downloads: "Save these findings",
  download_json: "JSON",
  download_csv: "CSV",
  download_html: "HTML report",
  download_print: "Print or PDF",
  download_sr: "DICOM SR",
  announce: "Lesion {number}: {site}, {side}. {certainty}",
  announce_removed: "Removed.",
  announce_scan: "{name} is open: {count} slices.",

  busy_upload: "Reading the scan",
  busy_image: "Loading the picture",
  busy_regions: "Reading the regions",
  busy_label: "Naming the sites",
  busy_report: "Preparing the file",
  step_of: "{text}: {done} of {total}",

  error_title: "That did not work",
  error_network: "The server does not answer. Is “situs serve” still running?",
  error_status: "The server answered {status} without saying why.",
  error_webgl: "This browser cannot show the scan: it has no WebGL 2.",
  error_stream: "The server ended its answer too early.",
  error_popup: "The browser did not open a new tab. Allow this page to open tabs, or save the HTML report.",

  series_title: "Which series?",
  series_text: "These files hold more than one head CT.",
  series_row: "{description}, {slices} slices",
  series_nameless: "without a description",
  series_open: "Open this series",
  token_title: "Token",
  token_text: "This server asks for the token that it printed when it started.",
  token_send: "Use this token",

  keys_title: "Keys and help",
  keys_intro: "Keys work while no text field or menu has the focus.",
  key_windows: "Brain, subdural, stroke, soft tissue and bone window",
  key_tools: "Look, point, box, brush",
  key_slices: "Next slice up or down of the plane that was used last; the mouse wheel does the same",
  key_arrows: "Move the crosshair, while the picture has the focus",
  key_enter: "Use the tool at the crosshair, while the picture has the focus",
  key_lesions: "Next or previous lesion",
  key_size: "Smaller or larger radius",
  key_masks: "Masks filled, outlined or hidden",
  key_zoom: "Zoom in, zoom out, whole slice",
  key_undo: "Take back the last shape or stroke",
  key_done: "Next lesion, while brushing",
  key_help: "This list",
  help_reading: "How to read a finding",
};

let texts = own;

/** Fetch the report's catalogue; its words hold where both have one. */
export async function loadTexts() {
  const response = await fetch("/static/report.json");
  if (!response.ok) throw new Error(own.error_network);
  texts = { ...own, ...(await response.json()) };
}

/** The text of a key, with its values filled in. */
export function t(key, values = {}) {
  if (!(key in texts)) throw new Error(`no text ${key}`);
  return texts[key].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** Fill in the texts of the document: data-t is an element's text, data-label its accessible name. */
export function fillTexts(root = document) {
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label));
    if (element.localName === "button") element.title = t(element.dataset.label);
  }
  document.title = t("page_title");
  document.documentElement.lang = t("language");
}
