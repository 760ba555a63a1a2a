// Chooses the color of a hint: what the model finds likely there, or any other.

import {$} from './controls.js';
import {percentOf} from './colorings.js';
import {hexOf, hueOf} from './lab.js';

export class Picker {
  // choose(color) is called with '#rrggbb' when a person has chosen.
  constructor(choose) {
    this.choose = choose;
    this.lightness = 65;
    this.color = null;
    for (const id of ['hue', 'chroma']) {
      $(id).addEventListener('input', () => this.slid(false));
      $(id).addEventListener('change', () => this.slid(true));
    }
    this.paint();
  }

  slid(isDone) {
    const color = hexOf(this.lightness, Number($('hue').value) * Math.PI / 180, Number($('chroma').value) / 100);
    this.set(color, false);
    if (isDone) this.choose(color);
  }

  set(color, moves = true) {
    this.color = color;
    if (color && moves) {
      const {hue, strength} = hueOf(color, this.lightness);
      $('hue').value = Math.round((hue * 180 / Math.PI + 360) % 360);
      $('chroma').value = Math.round(100 * strength);
    }
    this.paint();
  }

  // The colors that the model finds likely, and the lightness they are shown at.
  offer({lightness, swatches}) {
    this.lightness = Math.min(92, Math.max(25, lightness));
    $('swatches').replaceChildren(...swatches.map(({color, probability}) => {
      const button = document.createElement('button');
      button.className = 'swatch';
      button.dataset.color = color;
      const dot = document.createElement('i');
      dot.style.background = color;
      button.append(dot);
      if (probability !== null) button.append(percentOf(probability));
      button.setAttribute('aria-label', probability === null ?
        `The model's color ${color}` : `Color ${color}, probability ${percentOf(probability)}`);
      button.addEventListener('click', () => {
        this.set(color);
        this.choose(color);
      });
      return button;
    }));
    this.paint();
  }

  paint() {
    const strength = Math.max(0.25, Number($('chroma').value) / 100);
    const hue = Number($('hue').value) * Math.PI / 180;
    const stops = [];
    for (let i = 0; i <= 12; i++) stops.push(hexOf(this.lightness, i * Math.PI / 6, strength));
    $('hue').style.background = `linear-gradient(to right, ${stops.join(', ')})`;
    $('chroma').style.background = `linear-gradient(to right, ${
      [0, 0.5, 1].map((x) => hexOf(this.lightness, hue, x)).join(', ')})`;
    $('current').style.background = this.color || 'transparent';
    $('current-name').textContent = this.color || 'No color yet';
    for (const swatch of $('swatches').children) {
      swatch.setAttribute('aria-pressed', String(swatch.dataset.color === this.color));
    }
  }
}
