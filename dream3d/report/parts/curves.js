// Curves on canvas: hover reads all charts at one step, drag zooms them together, double-click shows everything again.
"use strict";

const COLOURS = ["#2f7ed8", "#d9502e", "#2a9d4a", "#9b4fc0", "#c98a12", "#129aa6", "#c2387f", "#6b7280"];
const MARGIN = { left: 52, right: 18, top: 8, bottom: 20 };

function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) return value.toExponential(2);
  return String(+value.toPrecision(4));
}

function ticks(low, high, count) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let x = Math.ceil(low / step) * step; x <= high + 1e-9 * step; x += step) found.push(x);
  return found;
}

class Charts {
  constructor(home, charts) {
    const ends = charts.flatMap((c) => c.lines.flatMap((l) => [l.x[0], l.x[l.x.length - 1]])).filter(Number.isFinite);
    this.whole = ends.length ? [Math.min(...ends), Math.max(...ends, Math.min(...ends) + 1)] : [0, 1];
    this.range = [...this.whole];
    this.hover = this.dragged = null;
    this.charts = charts.map((chart) => this.card(home, chart));
    new ResizeObserver(() => this.draw()).observe(home);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.draw();
  }

  card(home, chart) {
    const card = document.createElement("figure"), title = document.createElement("figcaption");
    const canvas = document.createElement("canvas"), legend = document.createElement("div");
    const log = document.createElement("button"), name = document.createElement("b");
    card.className = "chart";
    legend.className = "legend";
    name.textContent = chart.title;
    log.textContent = "log";
    log.title = "logarithmic axis";
    const state = { chart, canvas, log: false, hidden: new Set(), readings: [] };
    log.onclick = () => { state.log = !state.log; log.classList.toggle("on", state.log); this.draw(); };
    title.append(name, log);
    chart.lines.forEach((line, i) => {
      const item = document.createElement("button"), value = document.createElement("span");
      item.append(line.label, " ", value);
      item.style.setProperty("--ink", COLOURS[i % COLOURS.length]);
      item.title = "show or hide";
      item.onclick = () => {
        if (!state.hidden.delete(i)) state.hidden.add(i);
        item.classList.toggle("off", state.hidden.has(i));
        this.draw();
      };
      state.readings.push(value);
      legend.append(item);
    });
    card.append(title, canvas, legend);
    home.append(card);
    const step = (e) => {
      const box = canvas.getBoundingClientRect();
      const share = (e.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
      return this.range[0] + Math.max(0, Math.min(1, share)) * (this.range[1] - this.range[0]);
    };
    canvas.addEventListener("pointermove", (e) => { this.hover = step(e); this.draw(); });
    canvas.addEventListener("pointerleave", () => { this.hover = null; this.draw(); });
    canvas.addEventListener("pointerdown", (e) => { this.dragged = step(e); canvas.setPointerCapture(e.pointerId); });
    canvas.addEventListener("pointerup", (e) => {
      const [a, b] = [this.dragged, step(e)].sort((p, q) => p - q);
      this.dragged = null;
      if (b - a > 0.01 * (this.range[1] - this.range[0])) this.range = [a, b];
      this.draw();
    });
    canvas.addEventListener("dblclick", () => { this.range = [...this.whole]; this.draw(); });
    return state;
  }

  draw() { this.charts.forEach((state) => this.paint(state)); }

  paint(state) {
    const { canvas, chart } = state, style = getComputedStyle(canvas), dense = devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width) return;
    canvas.width = width * dense;
    canvas.height = height * dense;
    const g = canvas.getContext("2d");
    g.scale(dense, dense);
    g.font = "11px system-ui, sans-serif";
    const ink = style.color, faint = style.getPropertyValue("--faint") || "#8884";
    const [from, to] = this.range, visible = chart.lines.map((line, i) => [line, i]).filter(([, i]) => !state.hidden.has(i));
    const good = (y) => y !== null && (!state.log || y > 0), warp = state.log ? Math.log10 : (y) => y;
    let low = Infinity, high = -Infinity;
    for (const [line] of visible) line.x.forEach((x, k) => {
      if (x >= from && x <= to && good(line.y[k])) { low = Math.min(low, warp(line.y[k])); high = Math.max(high, warp(line.y[k])); }
    });
    if (low > high) [low, high] = [0, 1];
    const pad = (high - low || Math.abs(high) || 1) * 0.06;
    [low, high] = [low - pad, high + pad];
    const right = width - MARGIN.right, bottom = height - MARGIN.bottom;
    const px = (x) => MARGIN.left + (x - from) / (to - from) * (right - MARGIN.left);
    const py = (y) => bottom - (warp(y) - low) / (high - low) * (bottom - MARGIN.top);
    g.fillStyle = ink;
    g.strokeStyle = faint;
    g.textAlign = "right";
    g.textBaseline = "middle";
    for (const tick of ticks(low, high, 4)) {
      const y = bottom - (tick - low) / (high - low) * (bottom - MARGIN.top);
      g.beginPath(); g.moveTo(MARGIN.left, y); g.lineTo(right, y); g.stroke();
      g.fillText(short(state.log ? 10 ** tick : tick), MARGIN.left - 5, y);
    }
    g.textAlign = "center";
    for (const tick of ticks(from, to, 5)) g.fillText(short(tick), px(tick), bottom + 11);
    g.save();
    g.beginPath(); g.rect(MARGIN.left, 0, right - MARGIN.left, bottom); g.clip();
    for (const [line, i] of visible) {
      g.strokeStyle = COLOURS[i % COLOURS.length];
      g.lineWidth = 1.6;
      g.beginPath();
      let pen = false;
      line.x.forEach((x, k) => {
        if (!good(line.y[k])) { pen = false; return; }
        g[pen ? "lineTo" : "moveTo"](px(x), py(line.y[k]));
        pen = true;
      });
      g.stroke();
      if (line.x.length < 3) line.x.forEach((x, k) => good(line.y[k]) && g.strokeRect(px(x) - 2, py(line.y[k]) - 2, 4, 4));
    }
    this.read(state, g, px, py, good, bottom);
    g.restore();
  }

  read(state, g, px, py, good, bottom) {
    const { chart } = state;
    state.readings.forEach((value, i) => {
      const { x, y } = chart.lines[i];
      let k = x.length - 1;
      if (this.hover !== null) x.forEach((step, j) => { if (Math.abs(step - this.hover) < Math.abs(x[k] - this.hover)) k = j; });
      value.textContent = k < 0 ? "" : short(y[k]) + (this.hover !== null ? ` @ ${x[k]}` : "");
      if (this.hover === null || state.hidden.has(i) || !good(y[k])) return;
      g.fillStyle = COLOURS[i % COLOURS.length];
      g.beginPath(); g.arc(px(x[k]), py(y[k]), 3, 0, 7); g.fill();
    });
    if (this.hover === null) return;
    g.strokeStyle = "#8888";
    g.lineWidth = 1;
    g.beginPath(); g.moveTo(px(this.hover), 0); g.lineTo(px(this.hover), bottom); g.stroke();
    if (this.dragged !== null) {
      g.fillStyle = "#8883";
      g.fillRect(px(this.dragged), 0, px(this.hover) - px(this.dragged), bottom);
    }
  }
}
