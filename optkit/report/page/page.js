"use strict";
const root = document.documentElement;
const button = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const remembered = {
  get() { try { return localStorage.getItem("optkit-theme"); } catch { return null; } },
  set(theme) { try { localStorage.setItem("optkit-theme", theme); } catch { /* the browser forbids storage for local files */ } },
};
function current() { return root.dataset.theme || (system.matches ? "dark" : "light"); }
function show() { button.textContent = current() === "dark" ? "Light theme" : "Dark theme"; }
const before = remembered.get();
if (before === "dark" || before === "light") root.dataset.theme = before;
button.addEventListener("click", () => {
  root.dataset.theme = current() === "dark" ? "light" : "dark";
  remembered.set(root.dataset.theme);
  show();
});
system.addEventListener("change", show);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
button.hidden = false;
show();
