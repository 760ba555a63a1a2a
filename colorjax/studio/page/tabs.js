// The open photographs, if there are several.

import {$, showBlob} from './controls.js';

export class Tabs {
  constructor(api, on) {
    this.api = api;
    this.on = on;
    this.tabs = new Map();
  }

  show(photos, current) {
    for (const [photo, tab] of this.tabs) {
      if (!photos.includes(photo)) {
        tab.remove();
        this.tabs.delete(photo);
      }
    }
    for (const photo of photos) {
      if (!this.tabs.has(photo)) this.tabs.set(photo, this.make(photo));
      const tab = this.tabs.get(photo);
      $('tabs').append(tab);
      if (photo === current) tab.firstChild.setAttribute('aria-current', 'true');
      else tab.firstChild.removeAttribute('aria-current');
    }
  }

  make(photo) {
    const tab = document.createElement('span');
    tab.className = 'tab';
    const button = document.createElement('button');
    button.setAttribute('aria-label', photo.name);
    button.title = photo.name;
    const image = document.createElement('img');
    image.alt = '';
    button.append(image);
    button.addEventListener('click', () => this.on.open(photo));
    const close = document.createElement('button');
    close.className = 'close';
    close.textContent = '×';
    close.setAttribute('aria-label', `Close ${photo.name}`);
    close.addEventListener('click', () => this.on.close(photo));
    tab.append(button, close);
    this.api.blob(() => `photos/${photo.id}/original?longest=96`)
        .then((blob) => showBlob(image, blob), () => {});
    return tab;
  }
}
