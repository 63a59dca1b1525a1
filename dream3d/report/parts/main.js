// Joins the page's parts with what they show.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const stage = new Stage();
const faults = [];

document.querySelectorAll("[data-charts]").forEach((home) => {
  const charts = data.charts.filter((chart) => chart.group === home.dataset.charts);
  if (charts.length) home.charts = new Charts(home, charts);
});

document.querySelectorAll("canvas[data-asset]").forEach((canvas) => {
  stage.add(canvas, document.getElementById(canvas.dataset.asset).textContent).catch((error) => {
    faults.push(String(error));
    const note = document.createElement("p");
    note.className = "note";
    note.textContent = `The asset cannot be shown here: ${error.message}. The pictures show it from four sides.`;
    canvas.replaceWith(note);
  });
});

document.querySelectorAll("[data-mode]").forEach((home) => {
  for (const mode of MODES) {
    const button = document.createElement("button");
    button.textContent = mode;
    button.classList.toggle("on", mode === stage.look.mode);
    button.onclick = () => {
      stage.look.mode = mode;
      home.querySelectorAll("button").forEach((b) => b.classList.toggle("on", b === button));
      stage.ask();
    };
    home.append(button);
  }
});
document.querySelectorAll("[data-light]").forEach((select) => {
  for (const name of Object.keys(LIGHTS)) select.append(new Option(name, name));
  select.onchange = () => { stage.look.light = select.value; stage.ask(); };
});
document.querySelectorAll("[data-wire]").forEach((box) => {
  box.onchange = () => { stage.look.wire = box.checked; stage.ask(); };
});
document.querySelectorAll("[data-spin]").forEach((box) => {
  box.checked = stage.spinning;
  box.onchange = () => { stage.spinning = box.checked; stage.ask(); };
});
document.querySelectorAll("[data-home]").forEach((button) => {
  button.onclick = () => { Object.assign(stage.camera, HOME); stage.ask(); };
});
document.querySelectorAll("[data-side]").forEach((button) => {
  button.onclick = () => {
    stage.rest();
    stage.camera.azimuth = Number(button.dataset.side) * Math.PI / 180;
    stage.ask();
  };
});
document.querySelectorAll("[data-copy]").forEach((button) => {
  button.onclick = async () => {
    const text = document.getElementById(button.dataset.copy);
    // Pages from disk may have no clipboard; selected text can still be copied.
    getSelection().selectAllChildren(text);
    try { await navigator.clipboard.writeText(text.textContent); button.textContent = "copied"; } catch { /* selected */ }
  };
});
// Turntables run together: one turned by hand turns the others.
const films = [...document.querySelectorAll("video[data-turntable]")];
films.forEach((film) => film.addEventListener("seeked", () => {
  if (!film.paused) return;
  for (const other of films) {
    if (other === film) continue;
    other.pause();
    if (Math.abs(other.currentTime - film.currentTime) > 0.02) other.currentTime = film.currentTime;
  }
}));
addEventListener("resize", () => stage.ask());
document.addEventListener("visibilitychange", () => stage.ask());
