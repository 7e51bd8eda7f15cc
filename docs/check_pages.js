// What is wrong with the page: pictures that did not load, formulas without a size, what is wider than the window, and
// text whose contrast with its background is less than WCAG 2 level AA asks for.
() => {
  const channels = (color) => (color.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const luminance = (color) => {
    const [r, g, b] = channels(color).slice(0, 3).map((c) => c / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor, alpha = channels(color)[3];
      if (alpha === undefined || alpha > 0.9) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const contrast = (element) => {
    const [a, b] = [getComputedStyle(element).color, background(element)].map(luminance);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const text = (e) => e.textContent.trim().slice(0, 40);
  const shown = (e) => e.getClientRects().length > 0;
  const width = (e) => e.getBoundingClientRect().width;
  const right = (e) => e.getBoundingClientRect().right;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const readable = all("article :is(p, li, td, th, pre, code, span, a, dt, h1, h2, h3):not(.headerlink)");
  return {
    "broken picture": all("img").filter((e) => e.complete && !e.naturalWidth).map((e) => e.src),
    "picture without a description": all("article img").filter((e) => !e.hasAttribute("alt")).map((e) => e.src),
    "formula not drawn": all("math").filter((e) => shown(e.parentElement) && !width(e)).map(text),
    "wider than the window": document.documentElement.scrollWidth > innerWidth
      ? all("article *").filter((e) => right(e) > innerWidth + 1).map((e) => `${e.tagName} ${text(e)}`).slice(0, 3)
      : [],
    "hard to read": readable.filter((e) => shown(e) && text(e) && contrast(e) < 4.5)
      .map((e) => `${contrast(e).toFixed(1)}: ${text(e)}`).slice(0, 3),
  };
}
