// Files that come in and go out, and the dialogs.

import { ApiError, setToken } from "./api.js";
import { make } from "./findings.js";
import { t } from "./texts.js";

const $ = (id) => document.getElementById(id);

/** The buttons that choose files. */
export function chosenFiles({ openFiles, addFiles, openExample }) {
  const chooser = (input, buttons, act) => {
    for (const button of buttons) $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", () => {
      act([...$(input).files]);
      $(input).value = ""; // so that the same file can be chosen again
    });
  };
  chooser("scan-files", ["open-scan", "choose-files"], openFiles);
  chooser("scan-folder", ["open-folder", "choose-folder"], openFiles);
  chooser("region-files", ["add-regions"], addFiles);
  for (const button of ["open-example", "try-example"]) $(button).addEventListener("click", openExample);
}

/** Files dragged onto the window: with a scan open, they may be another scan or regions of this one. */
export function droppedFiles({ openFiles, addFiles, hasScan }) {
  const show = (shown) => {
    $("drop").hidden = !shown;
    $("drop-regions").hidden = !hasScan();
  };
  window.addEventListener("dragenter", (event) => {
    if (event.dataTransfer.types.includes("Files")) show(true);
  });
  window.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) show(false);
  });
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", async (event) => {
    event.preventDefault();
    const act = hasScan() && $("drop-regions").contains(event.target) ? addFiles : openFiles;
    show(false);
    act(await filesOf(event.dataTransfer));
  });
}

/** All files of a drop, those in folders too. */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  return (await Promise.all(entries.map(walk))).flat();
}

async function walk(entry) {
  if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    // A reader gives a hundred entries at a time.
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return files;
    files.push(...(await Promise.all(some.map(walk))).flat());
  }
}

export function saveBlob(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Open an HTML file in a tab of its own and print it.
 *  @param get () => Promise<Blob>
 *  @param run what does the work and shows its errors */
export function showPrintable(get, run) {
  const tab = window.open("", "_blank"); // at once: browsers allow it only while a click is handled
  run(async () => {
    if (!tab) throw new ApiError(t("error_popup"));
    const content = await get().catch((error) => {
      tab.close();
      throw error;
    });
    tab.location = URL.createObjectURL(content);
    const wait = setInterval(() => {
      if (tab.closed) return clearInterval(wait);
      if (tab.location.protocol !== "blob:" || tab.document.readyState !== "complete") return;
      clearInterval(wait);
      tab.print();
    }, 100);
  });
}

/** The id of the series that the user picks, null for none. */
export function askSeries(list) {
  const rows = list.map(({ id, description, slices }, index) => {
    const text = t("series_row", { description: description || t("series_nameless"), slices });
    return make("label", { class: "choice" }, make("input", { type: "radio", name: "series", value: id, checked: index === 0 }), text);
  });
  $("series-list").replaceChildren(...rows);
  const dialog = $("series");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => {
    const closed = () => done(dialog.returnValue === "open" ? dialog.querySelector("input:checked").value : null);
    dialog.addEventListener("close", closed, { once: true });
  });
}

/** Ask for the token until there is one.
 *  @param again whether the last one was refused */
export function askToken(again) {
  const dialog = $("token");
  if (again) $("token-input").value = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((done) => {
    const closed = () => {
      setToken($("token-input").value);
      done();
    };
    dialog.addEventListener("close", closed, { once: true });
  });
}
