// What the page asks of the server. Every failure is an ApiError whose text is the server's own line.

import { t } from "./texts.js";

const ROOT = "/api/v1";
const CLIENT_KEY = "situs.client";
const TOKEN_KEY = "situs.token";
// A page that is reloaded lets go of its name, late on a busy computer; one that was duplicated does not.
const RELOADED = performance.getEntriesByType("navigation")[0]?.type === "reload";
const LOCK_MS = RELOADED ? 15_000 : 1000;

export class ApiError extends Error {
  constructor(message, status = 0, body = {}) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

/** The client of this tab; a reload keeps it, so that its scan can be found again. */
let client = sessionStorage.getItem(CLIENT_KEY) ?? newClient();

function newClient() {
  const made = crypto.getRandomValues(new Uint32Array(4)).join("-");
  sessionStorage.setItem(CLIENT_KEY, made);
  return made;
}

/** Become another client if a tab that this one was duplicated from is this one; whether it was so. */
export async function leaveDuplicate() {
  if (!navigator.locks) return false; // browsers have them on this computer and with HTTPS alone
  if (await hold(client)) return false;
  client = newClient();
  hold(client);
  return true;
}

/** Hold a name as long as this page is open; false if another page holds it and goes on to. */
function hold(name) {
  const options = { signal: AbortSignal.timeout(LOCK_MS) };
  return new Promise((done) => {
    const held = () => {
      done(true);
      return new Promise(() => undefined);
    };
    navigator.locks.request(`situs ${name}`, options, held).catch(() => done(false));
  });
}

function token() {
  return document.querySelector('meta[name="situs-token"]').content || sessionStorage.getItem(TOKEN_KEY) || "";
}

/** Keep the user's token for this tab. */
export function setToken(value) {
  sessionStorage.setItem(TOKEN_KEY, value);
}

/** A token that came with the address, as #token=..., is kept and taken off the address. */
export function takeTokenFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  setToken(given);
  history.replaceState(null, "", location.pathname);
}

export function needsToken() {
  return token() === "";
}

async function send(method, path, body, accept = "*/*") {
  const headers = { "X-Situs-Token": token(), "X-Situs-Client": client, Accept: accept };
  if (body !== undefined && !(body instanceof FormData)) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(ROOT + path, { method, headers, body });
  } catch {
    throw new ApiError(t("error_network"));
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new ApiError(answer.error ?? t("error_status", { status: response.status }), response.status, answer);
}

function asForm(files, fields = {}) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  return form;
}

async function json(method, path, body) {
  return (await send(method, path, body)).json();
}

export const openScan = (files, series) => json("POST", "/scans", asForm(files, series ? { series } : {}));
export const openExample = () => json("POST", "/scans", { example: true });
export const dropScan = (scan) => send("DELETE", `/scans/${scan}`).catch(() => undefined);
export const addRegions = (scan, files) => json("POST", `/scans/${scan}/rois`, asForm(files));
export const addExampleRegions = (scan) => json("POST", `/scans/${scan}/rois`, { example: true });
export const addShapes = (scan, shapes) => json("POST", `/scans/${scan}/rois`, { shapes });

export async function getImage(scan) {
  return (await send("GET", `/scans/${scan}/image.nii.gz`)).arrayBuffer();
}

export async function getMask(scan, roi) {
  return (await send("GET", `/scans/${scan}/rois/${roi}/mask.nii.gz`)).arrayBuffer();
}

/** A file of findings: ".json", ".csv", ".html", ".dcm", or "/references/1.png". */
export async function getFindingFile(scan, findings, name) {
  return (await send("GET", `/scans/${scan}/findings/${findings}${name}`)).blob();
}

/** The findings of regions; `onProgress` hears {done, total, text} meanwhile. */
export async function label(scan, roi, onProgress) {
  const response = await send("POST", `/scans/${scan}/findings`, { roi }, "text/event-stream");
  if (!response.headers.get("Content-Type").startsWith("text/event-stream")) return response.json();
  for await (const { event, data } of events(response)) {
    if (event === "progress") onProgress(data);
    else if (event === "findings") return data;
    else if (event === "error") throw new ApiError(data.error);
  }
  throw new ApiError(t("error_stream"));
}

/** The server-sent events of a response. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch(() => ({ done: true }));
    if (done) return;
    const parts = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n");
      const event = lines.find((line) => line.startsWith("event:"))?.slice(6).trim();
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (event) yield { event, data: JSON.parse(data) };
    }
  }
}
