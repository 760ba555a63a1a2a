// The colorings side by side, most probable first.

import {$, radios, showBlob} from './controls.js';
import {sameColoring} from './history.js';
import {Latest} from './latest.js';

const NAMES = {1: 'As predicted', 0.6: 'Muted', 1.4: 'Stronger', 1.8: 'Vivid'};

export class Colorings {
  // choose(coloring) is called when a person takes one.
  constructor(api, choose) {
    this.api = api;
    this.entries = [];
    this.seed = null;
    this.selected = null;
    this.mark = radios($('colorings'), (button) => choose(this.entries[Number(button.dataset.number)].coloring));
    this.latest = new Latest((asked) => this.load(asked), () => {}, {
      fail: (error) => { if (error.status !== 422) console.warn(error); },
    });
  }

  // Draws the colorings for a photograph and what was chosen for it.
  show(photo, doc) {
    const {coloring, regions, ...rest} = doc;
    const key = JSON.stringify([photo.key, this.seed, {...rest, seed: coloring.seed}]);
    if (key === this.key) return;
    this.key = key;
    if (photo.key !== this.photo) $('colorings').replaceChildren();
    this.photo = photo.key;
    this.latest.ask({photo, doc, seed: this.seed, key});
  }

  forget() {
    this.key = null;
  }

  async load({photo, doc, seed, key}) {
    const {colorings} = await this.api.json(
        () => `photos/${photo.id}/colorings`, {json: {choices: doc, seed}});
    if (key !== this.key) return;
    this.entries = colorings;
    this.build();
    for (const [i, {coloring}] of colorings.entries()) {
      if (key !== this.key) return;
      const blob = await this.api.blob(() => `photos/${photo.id}/picture`, {
        json: {choices: {...doc, coloring, regions: []}, longest: 256}});
      if (key !== this.key) return;
      showBlob($('colorings').children[i].querySelector('img'), blob);
    }
  }

  build() {
    const group = $('colorings');
    while (group.children.length > this.entries.length) group.lastChild.remove();
    while (group.children.length < this.entries.length) {
      const button = document.createElement('button');
      button.className = 'coloring';
      button.setAttribute('role', 'radio');
      button.dataset.number = group.children.length;
      const thumb = document.createElement('span');
      thumb.className = 'thumb';
      const image = document.createElement('img');
      image.alt = '';
      thumb.append(image);
      const share = document.createElement('span');
      share.className = 'share';
      share.append(document.createElement('i'));
      const label = document.createElement('span');
      label.className = 'label';
      label.append(document.createElement('span'), document.createElement('span'));
      button.append(thumb, share, label);
      group.append(button);
    }
    this.entries.forEach(({coloring, probability}, i) => {
      const button = group.children[i];
      const name = this.entries.every((one) => one.coloring.index === 0) ?
        NAMES[coloring.strength] || `${Math.round(100 * coloring.strength)} %` : `${i + 1}`;
      const percent = probability === null ? '' : percentOf(probability);
      const [left, right] = button.querySelector('.label').children;
      left.textContent = name;
      right.textContent = percent;
      button.querySelector('.share').hidden = probability === null;
      button.querySelector('.share i').style.width = `${100 * (probability || 0)}%`;
      const spoken = name === `${i + 1}` ? `Coloring ${name}` : name;
      button.setAttribute('aria-label', percent ? `${spoken}, probability ${percent}` : spoken);
    });
    this.select(this.selected);
  }

  select(coloring) {
    this.selected = coloring;
    const i = coloring ? this.entries.findIndex((one) => sameColoring(one.coloring, coloring)) : -1;
    this.mark(i < 0 ? null : $('colorings').children[i]);
  }
}

export function percentOf(probability) {
  const percent = 100 * probability;
  return percent > 0 && percent < 1 ? '< 1 %' : `${Math.round(percent)} %`;
}
