// Keys, buttons that copy, and word of new changes: pages work without.
"use strict";

const rows = () => [...document.querySelectorAll("[data-row]")];
const current = () => document.querySelector("[data-row][aria-current]");

function go(step) {
  const all = rows();
  if (!all.length) return;
  const at = all.indexOf(current());
  const next = all[Math.min(all.length - 1, Math.max(0, at + step))];
  current()?.removeAttribute("aria-current");
  next.setAttribute("aria-current", "true");
  next.querySelector("[data-open]").focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

function fold() {
  const details = current()?.querySelector("details");
  if (details) details.open = !details.open;
}

function focusOn(selector) {
  const field = document.querySelector(selector);
  const menu = field?.closest("details");
  if (menu) menu.open = true;
  field?.focus();
}

const KEYS = {
  "/": () => focusOn("[data-filter]"),
  j: () => go(1),
  k: () => go(-1),
  d: fold,
  t: () => focusOn("#when"),
  "?": () => document.getElementById("keys")?.showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target.closest("input, select, textarea, dialog")) return;
  // Enter opens what has the focus, which is the row that was gone to.
  const action = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : null;
  if (!action) return;
  event.preventDefault();
  action();
});

document.addEventListener("focusin", (event) => {
  const row = event.target.closest("[data-row]");
  if (!row || row === current()) return;
  current()?.removeAttribute("aria-current");
  row.setAttribute("aria-current", "true");
});

document.getElementById("add")?.addEventListener("change", (event) => {
  document.getElementById("value").placeholder = event.target.selectedOptions[0].dataset.example;
});

// Listens while somebody looks, and no longer than it takes: the page stays as it is until it is asked
// for anew.
const fresh = document.querySelector("[data-stream]");

function listen() {
  const events = new EventSource(fresh.dataset.stream);
  const leave = () => {
    events.close();
    document.removeEventListener("visibilitychange", leave);
  };
  const told = () => {
    leave();
    fresh.hidden = false;
  };
  events.addEventListener("change", told);
  events.addEventListener("missing", told);
  document.addEventListener("visibilitychange", leave);
}

if (fresh) {
  const look = () => !document.hidden && fresh.hidden && listen();
  look();
  document.addEventListener("visibilitychange", look);
}

// A slider beside the list that it moves through. It is let go to look, or Enter is pressed.
for (const range of document.querySelectorAll("[data-slider]")) {
  const list = document.getElementById(range.dataset.slider);
  const tell = () => range.setAttribute("aria-valuetext", list.selectedOptions[0].textContent);
  range.value = list.selectedIndex;
  range.addEventListener("input", () => {
    list.selectedIndex = range.value;
    tell();
  });
  range.addEventListener("pointerup", () => list.form.requestSubmit());
  list.addEventListener("change", () => {
    range.value = list.selectedIndex;
    tell();
  });
  tell();
}

function letCopy() {
  if (!navigator.clipboard) return;
  for (const button of document.querySelectorAll("[data-copy][hidden]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "copied";
    });
  }
}
letCopy();

// A part that is read again every so many seconds, while somebody looks and does nothing in it.
async function readAgain() {
  const part = document.querySelector("[data-again]");
  const isUsed = part.contains(document.activeElement) || part.querySelector("details[open]");
  if (!document.hidden && !isUsed) {
    const answer = await fetch(location.href).catch(() => null);
    if (answer?.redirected) return; // nobody is signed in any more
    if (answer?.ok) {
      const read = new DOMParser().parseFromString(await answer.text(), "text/html");
      const anew = read.querySelector("[data-again]");
      if (anew) part.replaceWith(anew);
      letCopy();
    }
  }
  setTimeout(readAgain, 1000 * document.querySelector("[data-again]").dataset.again);
}

const again = document.querySelector("[data-again]");
if (again) setTimeout(readAgain, 1000 * again.dataset.again);
