"""Walk every page of build/docs in a headless browser, on a desk and on a phone, light and dark.

A page fails by an error on the console, a link or anchor that leads nowhere, an image without an
alternative text or that does not load, a page wider than a phone, or text that is hard to read.
"""

import itertools
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from selenium import webdriver

ROOT = Path(__file__).parents[1] / "build" / "docs"
DESK, PHONE = (1280, 900), (390, 844)
LOOK = """
const text = getComputedStyle(document.querySelector('main') || document.body);
let ground = document.body, back = getComputedStyle(ground).backgroundColor;
return {
  links: [...document.querySelectorAll('a[href]')].map(a => a.href),
  ids: [...document.querySelectorAll('[id]')].map(e => e.id),
  images: [...document.querySelectorAll('img')].map(
      i => [i.src, i.alt, i.complete && i.naturalWidth > 0]),
  width: document.documentElement.scrollWidth,
  inner: document.documentElement.clientWidth,
  widest: [...document.querySelectorAll('main *')].filter(
      e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
      .slice(0, 3).map(e => e.tagName + '.' + e.className),
  colour: text.color, back: back,
};
"""


def browser() -> webdriver.Chrome:
    """A headless Chrome that keeps the console."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options)


def luminance(colour: str) -> float:
    """The relative luminance of a CSS colour, as WCAG defines it."""
    parts = [float(x) / 255 for x in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, as WCAG defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def look(chrome: webdriver.Chrome, page: Path, theme: str) -> dict[str, Any]:
    """What a page holds in this theme, and what the console says."""
    chrome.get(page.as_uri())
    chrome.execute_script(
        "document.documentElement.dataset.theme = arguments[0];"
        "document.querySelectorAll('img').forEach(i => i.loading = 'eager');",
        theme,
    )
    found = chrome.execute_script(LOOK)
    found["errors"] = [e["message"] for e in chrome.get_log("browser") if e["level"] == "SEVERE"]
    return found


def faults_of(found: dict[str, Any]) -> list[str]:
    """What is wrong with a page on its own."""
    faults = list(found["errors"])
    if found["width"] > found["inner"] + 1:
        faults.append(f"{found['width']} px wide: {found['widest']}")
    if (ratio := contrast(found["colour"], found["back"])) < 4.5:
        faults.append(f"contrast of the text {ratio:.1f}")
    for source, alt, loaded in found["images"]:
        faults += [] if alt.strip() else [f"no alternative text: {source}"]
        faults += [] if loaded else [f"does not load: {source}"]
    return faults


def broken(name: str, link: str, ids: dict[str, set[str]]) -> str:
    """What is wrong with a link into the site; "" where nothing is."""
    address, anchor = urldefrag(urljoin((ROOT / name).as_uri(), link))
    if not address.startswith("file://"):
        return ""
    target = Path(unquote(address.removeprefix("file://")))
    if not target.exists():
        return f"broken link: {link}"
    known = ids.get(str(target.relative_to(ROOT)), set())
    if anchor and target.suffix == ".html" and unquote(anchor) not in known:
        return f"no such anchor: {link}"
    return ""


def main() -> int:
    """Walk, and print what is wrong; a status other than 0 says that something is."""
    pages = sorted(p for p in ROOT.rglob("*.html") if "_static" not in p.parts)
    faults, links, ids = [], [], dict[str, set[str]]()
    chrome = browser()
    try:
        for theme, (width, height) in itertools.product(("light", "dark"), (DESK, PHONE)):
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
            metrics["mobile"] = width == PHONE[0]
            chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            for page in pages:
                name = str(page.relative_to(ROOT))
                found = look(chrome, page, theme)
                faults += [f"{name} ({theme}, {width} px): {fault}" for fault in faults_of(found)]
                ids[name] = set(found["ids"])
                links += [(name, link) for link in found["links"]]
    finally:
        chrome.quit()
    links = list(dict.fromkeys(links))
    faults += [f"{name}: {fault}" for name, link in links if (fault := broken(name, link, ids))]
    print(f"{len(pages)} pages, {len(links)} links, {len(faults)} faults")
    print(*faults[:200], sep="\n  ")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
