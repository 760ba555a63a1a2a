// CIE Lab and sRGB (D65), for the picker. Lightness in [0, 100], ab in Lab units.

const WHITE = [0.95047, 1, 1.08883];

const toLinear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const toGamma = (v) => (v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055);

export function labOf(hex) {
  const [r, g, b] = [1, 3, 5].map((i) => toLinear(parseInt(hex.slice(i, i + 2), 16) / 255));
  const xyz = [
    0.412453 * r + 0.35758 * g + 0.180423 * b,
    0.212671 * r + 0.71516 * g + 0.072169 * b,
    0.019334 * r + 0.119193 * g + 0.950227 * b,
  ];
  const [x, y, z] = xyz.map((v, i) => {
    const t = v / WHITE[i];
    return t > 216 / 24389 ? Math.cbrt(t) : (24389 / 27 * t + 16) / 116;
  });
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

function linearOf(lightness, a, b) {
  const y = (lightness + 16) / 116;
  const [X, Y, Z] = [y + a / 500, y, y - b / 200].map((f, i) =>
    WHITE[i] * (f > 6 / 29 ? f ** 3 : 3 * (6 / 29) ** 2 * (f - 4 / 29)));
  return [
    3.240479 * X - 1.53715 * Y - 0.498535 * Z,
    -0.969256 * X + 1.875992 * Y + 0.041556 * Z,
    0.055648 * X - 0.204043 * Y + 1.057311 * Z,
  ];
}

const fits = (rgb) => rgb.every((v) => v >= -1e-4 && v <= 1.0001);

// The largest chroma of a hue that sRGB can show at a lightness.
export function maxChroma(lightness, hue) {
  let low = 0;
  let high = 140;
  for (let i = 0; i < 14; i++) {
    const middle = (low + high) / 2;
    const [a, b] = [middle * Math.cos(hue), middle * Math.sin(hue)];
    if (fits(linearOf(lightness, a, b))) low = middle; else high = middle;
  }
  return low;
}

// hue in radians; strength is the share of the largest chroma, in [0, 1].
export function hexOf(lightness, hue, strength) {
  const chroma = strength * maxChroma(lightness, hue);
  const rgb = linearOf(lightness, chroma * Math.cos(hue), chroma * Math.sin(hue));
  return '#' + rgb.map((v) => Math.round(255 * Math.min(1, Math.max(0, toGamma(Math.max(0, v)))))
      .toString(16).padStart(2, '0')).join('');
}

export function hueOf(hex, lightness) {
  const [own, a, b] = labOf(hex);
  const hue = Math.atan2(b, a);
  const most = maxChroma(lightness ?? own, hue);
  return {hue, strength: most ? Math.min(1, Math.hypot(a, b) / most) : 0};
}
