// Losses over steps, as lines on a logarithmic scale.

const MARGIN = { left: 64, right: 16, top: 16, bottom: 36 };

/** Draws curves, `{ losses, color, name }`, in the colors of the page. */
export function drawChart(canvas, curves) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const color = (name) => style.getPropertyValue(name).trim();
  context.font = `13px ${style.fontFamily}`;

  const found = curves.flatMap(({ losses }) => range(losses));
  const steps = Math.max(10, ...curves.map(({ losses }) => losses.length));
  const high = Math.log10(Math.max(...found, 1e-2)) + 0.1;
  const low = Math.min(Math.log10(Math.min(...found, 1e-1)) - 0.1, high - 1);
  const x = (step) => MARGIN.left + ((width - MARGIN.left - MARGIN.right) * step) / steps;
  const y = (loss) => MARGIN.top + ((height - MARGIN.top - MARGIN.bottom) * (high - Math.log10(loss))) / (high - low);

  context.strokeStyle = color("--line");
  context.fillStyle = color("--quiet");
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (let power = Math.ceil(low); power <= high; power++) {
    const at = Math.round(y(10 ** power)) + 0.5;
    line(context, [MARGIN.left, at], [width - MARGIN.right, at]);
    context.fillText(power === 0 ? "1" : `10${superscript(power)}`, MARGIN.left - 8, at);
  }
  context.textBaseline = "top";
  context.textAlign = "center";
  const every = tick(steps, width);
  for (let step = 0; step <= steps; step += every) {
    context.fillText(step.toLocaleString("en"), x(step), height - MARGIN.bottom + 8);
  }
  context.textAlign = "left";
  context.fillText("loss", 8, 8);

  for (const curve of curves) {
    context.strokeStyle = color(curve.color);
    context.lineWidth = 2;
    context.lineJoin = "round";
    context.beginPath();
    for (const [step, loss] of thinned(curve.losses, width)) context.lineTo(x(step), y(loss));
    context.stroke();
  }
  context.lineWidth = 1;
  context.textAlign = "right";
  curves.forEach((curve, i) => {
    context.fillStyle = color(curve.color);
    context.fillText(curve.name, width - MARGIN.right - 8, MARGIN.top + 4 + 20 * i);
  });
}

function line(context, from, to) {
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  context.stroke();
}

const isDrawn = (loss) => loss > 0 && Number.isFinite(loss);

function range(losses) {
  let [low, high] = [Infinity, -Infinity];
  for (const loss of losses) {
    if (isDrawn(loss)) [low, high] = [Math.min(low, loss), Math.max(high, loss)];
  }
  return low <= high ? [low, high] : [];
}

/** At most one point per pixel, each the mean of its losses. */
function thinned(losses, width) {
  const group = Math.max(1, Math.floor(losses.length / width));
  const points = [];
  for (let first = 0; first < losses.length; first += group) {
    const some = losses.slice(first, first + group).filter(isDrawn);
    if (some.length) points.push([first, some.reduce((a, b) => a + b) / some.length]);
  }
  return points;
}

/** A round number of steps between two labels. */
function tick(steps, width) {
  const least = (steps * 80) / width;
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((every) => every >= least);
}

function superscript(power) {
  return String(power).replace("-", "⁻").replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
}
