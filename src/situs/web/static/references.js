// The references that a lesion is compared with: a row of pictures, which a click shows larger, and their list.

import { make } from "./findings.js";
import { t } from "./texts.js";

const $ = (id) => document.getElementById(id);

/** Fill the figure of a finding.
 *  @param figure of `drawFinding`
 *  @param comparison of the finding
 *  @param source the address of their picture */
export function showReferences(figure, comparison, source) {
  const bySite = new Map();
  for (const { site, distance } of comparison) {
    bySite.set(site, [...(bySite.get(site) ?? []), distance.toFixed(2)]);
  }
  const rows = [...bySite].map(([site, distances]) =>
    t("reference_caption", { site: t(`site.${site}`), distance: distances.join(", ") }),
  );
  const alt = t("references_alt", { list: rows.join("; ") });
  const enlarge = () => {
    Object.assign($("larger").querySelector("img"), { src: source, alt });
    $("larger").showModal();
  };
  const button = make("button", { type: "button", class: "picture", onclick: enlarge, title: t("enlarge") });
  button.append(make("img", { src: source, alt }));
  figure.append(button, make("ul", {}, ...rows.map((row) => make("li", {}, row))));
  figure.hidden = false;
}
