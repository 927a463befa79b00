// Work that takes a while: one piece after the other, because each builds on what the last left; and what is
// said meanwhile.

import { ApiError } from "./api.js";
import { askToken } from "./browser.js";
import { make } from "./findings.js";
import { t } from "./texts.js";

const $ = (id) => document.getElementById(id);

let queue = Promise.resolve();

export function run(key, task) {
  queue = queue.then(async () => {
    busy(t(key));
    try {
      await task();
    } catch (error) {
      fail(error);
    } finally {
      $("busy").hidden = true;
    }
  });
  return queue;
}

export function busy(text, done = null, total = null) {
  $("busy").hidden = false;
  $("busy-text").textContent = total ? t("step_of", { text, done, total }) : text;
  if (total) {
    $("busy-bar").max = total;
    $("busy-bar").value = done;
  } else $("busy-bar").removeAttribute("value");
}

export function fail(error) {
  if (!(error instanceof ApiError)) console.error(error);
  const close = make("button", { type: "button", class: "remove", "aria-label": t("close"), onclick: calm }, "×");
  $("alert").replaceChildren(make("div", {}, make("strong", {}, t("error_title")), make("p", {}, error.message)), close);
  if (error.status === 401) askToken(true);
}

export function calm() {
  $("alert").replaceChildren();
}

export function announce(text) {
  $("status").textContent = text;
}
