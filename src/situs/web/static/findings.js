// The list of lesions and the finding of the selected one, as elements. Words and order are the HTML report's.

import { t } from "./texts.js";

const FEW_SITES = 5;

/** An element with attributes and children; strings become text. */
export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else if (value !== false && value !== null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function siteOf(finding) {
  if (finding.site) return t(`site.${finding.site}`);
  return t(finding.slices.length ? "too_small" : "outside");
}

export function sideOf(finding) {
  return finding.side ? t(`side.${finding.side}`) : t("none");
}

export function certaintyOf(finding) {
  if (!finding.site) return t("no_site_sentence");
  return t(finding.sure ? "sure_sentence" : "not_sure_sentence");
}

export function volumeOf(finding) {
  const ml = finding.volume_ml;
  return t("ml", { number: ml < 1 ? ml.toFixed(2) : ml.toFixed(1) });
}

/** Text for screen readers alone. */
function heard(text) {
  return make("span", { class: "sr" }, text);
}

function badge(finding) {
  const sure = finding.site && finding.sure;
  return make("span", { class: sure ? "badge sure" : "badge unsure" }, t(sure ? "sure" : "not_sure"));
}

/** The list: a heading and a list of buttons for each group of regions.
 *  @param act {select(group, index), remove(group, index), removeGroup(group)} */
export function drawList(groups, selected, act) {
  return groups.map((group) => {
    const findings = group.document?.findings ?? [];
    const rows = findings.map((finding, index) => {
      const number = index + 1;
      const current = selected?.group === group && selected.index === index;
      const row = make(
        "button",
        {
          type: "button",
          class: "row",
          "aria-current": current ? "true" : false,
          onclick: () => act.select(group, index),
        },
        heard(`${t("lesion")} `),
        make("span", { class: "tally" }, String(number)),
        heard(": "),
        make("span", { class: "where" }, siteOf(finding), heard(", "), make("small", {}, sideOf(finding))),
        heard(", "),
        badge(finding),
        heard(", "),
        make("span", { class: "volume" }, volumeOf(finding)),
      );
      const gone = group.drawn && removeButton(t("remove_lesion", { number }), () => act.remove(group, index));
      return make("li", {}, row, gone || null);
    });
    const head = make("div", { class: "group" }, make("h3", {}, make("bdi", {}, group.name)));
    head.append(removeButton(t("remove_group", { name: group.name }), () => act.removeGroup(group)));
    return make("div", {}, head, make("ul", { class: "rows" }, ...rows));
  });
}

/** Scroll a list, and nothing else, so far that a row of it is seen. */
export function showInList(list, row) {
  const [inside, outside] = [row.getBoundingClientRect(), list.getBoundingClientRect()];
  if (inside.top < outside.top) list.scrollTop -= outside.top - inside.top;
  else if (inside.bottom > outside.bottom) list.scrollTop += inside.bottom - outside.bottom;
}

function removeButton(label, onclick) {
  return make("button", { type: "button", class: "remove", "aria-label": label, title: label, onclick }, "×");
}

/** The finding of a lesion.
 *  @param act {save(name), print()} */
export function drawFinding(finding, number, lastSlice, act) {
  const heading = finding.site
    ? [siteOf(finding), make("span", { class: "side" }, sideOf(finding))]
    : [siteOf(finding)];
  return [
    make("h2", { id: "finding-heading", tabindex: "-1" }, make("span", { class: "tally" }, String(number)), ...heading),
    make("p", { class: finding.site && finding.sure ? "verdict sure" : "verdict unsure" }, certaintyOf(finding)),
    sentences(finding.doubts, t("why"), "why"),
    drawScores(finding),
    make("figure", { class: "references", hidden: true }, make("figcaption", {}, t("comparison"))),
    drawDetails(finding, lastSlice),
    sentences(finding.notes, t("notes"), "notes"),
    drawDownloads(act),
  ];
}

function sentences(list, title, name) {
  if (!list.length) return null;
  const items = list.map((sentence) => make("li", {}, sentence));
  return make("section", { class: name }, make("h3", {}, title), make("ul", { lang: "en" }, ...items));
}

/** Scores as bars, the highest first. The rest of the 15 stands behind a button. */
function drawScores(finding) {
  const keys = Object.keys(finding.scores).sort((a, b) => finding.scores[b] - finding.scores[a]);
  if (!keys.length) return null;
  const rows = keys.map((key, index) => {
    const score = finding.scores[key];
    const bar = make("span", { class: "bar" });
    bar.style.width = `${Math.min(Math.max(100 * score, 0), 100)}%`;
    const share = finding.shares[key];
    return make(
      "tr",
      { class: key === finding.site ? "named" : "", hidden: index >= FEW_SITES },
      make("th", { scope: "row" }, t(`site.${key}`), key === finding.site ? heard(` (${t("named")})`) : null),
      make("td", { class: "track" }, make("span", { class: "frame" }, bar)),
      make("td", {}, score.toFixed(2)),
      make("td", {}, share === undefined ? t("share_none") : t("percent", { number: (100 * share).toFixed(0) })),
    );
  });
  const more = make("button", { type: "button", class: "quiet", "aria-expanded": "false" }, t("all_sites"));
  more.addEventListener("click", () => {
    const open = more.getAttribute("aria-expanded") === "false";
    more.setAttribute("aria-expanded", String(open));
    more.textContent = t(open ? "fewer_sites" : "all_sites");
    for (const row of rows.slice(FEW_SITES)) row.hidden = !open;
  });
  const head = make(
    "tr",
    {},
    make("th", { scope: "col" }, t("site")),
    make("th", { scope: "col", colspan: 2 }, t("score")),
    make("th", { scope: "col" }, t("share_short")),
  );
  return make(
    "section",
    {},
    make(
      "table",
      { class: "scores" },
      make("caption", { class: "sr" }, t("score_caption")),
      make("thead", {}, head),
      make("tbody", {}, ...rows),
    ),
    more,
  );
}

function drawDetails(finding, lastSlice) {
  const sites = finding.site_set.map((key) => t(`site.${key}`)).join(", ") || t("none");
  const pairs = [
    ["volume", volumeOf(finding)],
    ["slices", finding.slices.length ? `${finding.slices[0]}–${finding.slices.at(-1)}` : t("none")],
    ["largest_slice", finding.largest_slice === null ? t("none") : t("slice_value", { slice: finding.largest_slice, last: lastSlice })],
    ["site_set", sites],
    ...drawGroups(finding),
    ["region", `${finding.roi_value} ${finding.roi_name}`],
    ["bundle", `${finding.bundle_name} ${finding.bundle_version}`],
  ];
  return drawPairs(pairs);
}

/** Pairs for `drawPairs`: the group of the site in each grouping; of several possible sites, whether all share it. */
function drawGroups(finding) {
  return Object.entries(finding.groups).map(([grouping, name]) => {
    const group = name === null ? t("none") : t(`group.${name}`);
    const shared = name !== null && finding.shared_groups[grouping] === name;
    const key = shared ? "group_shared" : "group_not_shared";
    return [`grouping.${grouping}`, finding.site_set.length > 1 ? t(key, { group }) : group];
  });
}

/** A description list of texts by the keys of their terms. */
export function drawPairs(pairs) {
  return make("dl", {}, ...pairs.map(([key, value]) => make("div", {}, make("dt", {}, t(key)), make("dd", {}, make("bdi", {}, value)))));
}

function drawDownloads(act) {
  const button = (key, onclick) => make("button", { type: "button", onclick }, t(key));
  return make(
    "section",
    { class: "downloads", "aria-labelledby": "downloads-heading" },
    make("h3", { id: "downloads-heading" }, t("downloads")),
    make(
      "div",
      { class: "buttons" },
      button("download_json", () => act.save(".json")),
      button("download_csv", () => act.save(".csv")),
      button("download_html", () => act.save(".html")),
      button("download_print", () => act.print()),
      button("download_sr", () => act.save(".dcm")),
    ),
  );
}
