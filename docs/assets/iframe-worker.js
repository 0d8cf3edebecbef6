/* Browsers start no worker from file://, where this site may lie. There, a hidden frame stands in for the one that
   searches: it runs the same script, and messages pass both ways. Over http(s) nothing is changed. */
"use strict";
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.worker = this;
      this.frame.hidden = true;
      document.documentElement.append(this.frame);
      const script = new URL(address, document.baseURI).href.replaceAll("&", "&amp;").replaceAll('"', "&quot;");
      const answer = "postMessage = (data) => frameElement.worker.dispatchEvent(new MessageEvent('message', { data }))";
      const within = this.frame.contentDocument;
      within.open();
      /* Scripts run in order, so the last one finds the worker's script ready. */
      within.write(`<script>${answer}<\/script><script src="${script}"><\/script>`);
      within.write("<script>frameElement.worker.begin()<\/script>");
      within.close();
    }

    begin() {
      const waiting = this.waiting;
      this.waiting = null;
      waiting.forEach((data) => this.postMessage(data));
    }

    postMessage(data) {
      if (this.waiting) {
        this.waiting.push(data);
      } else {
        const within = this.frame.contentWindow;
        within.dispatchEvent(new within.MessageEvent("message", { data }));
      }
    }

    terminate() {
      this.frame.remove();
    }
  };
}
