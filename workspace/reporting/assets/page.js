"use strict";
// Slices, theme and tips; all text is there without.
for (const slider of document.querySelectorAll("input[type=range]")) {
  const view = slider.closest(".view");
  const film = view.querySelector(".film"), svg = film.querySelector("svg"), told = view.querySelector("output");
  const slices = slider.dataset.slices.split(" "), height = Number(film.dataset.height);
  const plane = slider.parentElement.textContent.trim();
  const turn = () => {
    const box = svg.viewBox.baseVal;
    box.y = Number(slider.value) * height;
    told.textContent = `${plane} ${slices[slider.value]} of ${slider.dataset.of}`;
    slider.setAttribute("aria-valuetext", told.textContent);
  };
  slider.parentElement.hidden = false;
  slider.addEventListener("input", turn);
  turn();
}

const button = document.getElementById("theme");
const dark = () => (document.documentElement.dataset.theme
  ? document.documentElement.dataset.theme === "dark"
  : matchMedia("(prefers-color-scheme: dark)").matches);
const name = () => { button.textContent = dark() ? "Light theme" : "Dark theme"; };
button.hidden = false;
button.addEventListener("click", () => {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  name();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
name();

const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);
document.addEventListener("pointermove", (event) => {
  const mark = event.target.closest(".drawing [aria-label][role=graphics-symbol]");
  tip.hidden = !mark || !mark.getAttribute("aria-roledescription").match(/^(point|bar|rect|tick|text)/);
  if (tip.hidden) return;
  tip.textContent = mark.getAttribute("aria-label");
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
});
