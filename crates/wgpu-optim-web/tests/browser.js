// A browser with WebGPU, and a server of what was built. A page that complains on the console, or asks another origin for
// anything, fails its test.
//
// CHROMIUM names the browser. WEBGPU_ADAPTER=hardware takes the machine's GPU in place of SwiftShader.

import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { serve } from "./static.js";

/** What scripts/web.sh built. */
export const BUILT = process.env.WEB_BUILT ?? fileURLToPath(new URL("../../../target/web", import.meta.url));

/** Opens a browser, once a file of tests: `page` opens pages, `close` ends it. */
export async function open(folder = BUILT, pages = {}) {
  const { server, origin } = await serve(folder, {
    pages: { "/blank.html": "<!doctype html><link rel=icon href=data:,>", ...pages },
  });
  const profile = await mkdtemp(join(tmpdir(), "wgpu-optim-"));
  // Canvases lose their device unless all of the browser's graphics are SwiftShader's.
  const swiftshader = ["--use-webgpu-adapter=swiftshader", "--use-vulkan=swiftshader", "--use-angle=swiftshader"];
  const adapter = process.env.WEBGPU_ADAPTER === "hardware" ? [] : [...swiftshader, "--ignore-gpu-blocklist"];
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--enable-unsafe-webgpu",
      "--enable-features=Vulkan",
      // A software GPU on a busy machine is slow, not hung.
      "--disable-gpu-watchdog",
      // For tests of leaks: gc(), and heap sizes to the byte.
      "--js-flags=--expose-gc",
      "--enable-precise-memory-info",
      ...adapter,
    ],
  });
  const complaints = new Map();

  async function page(path = "/blank.html", { viewport = { width: 1280, height: 900 }, before, ...media } = {}) {
    const page = await context.newPage();
    await page.setViewportSize(viewport);
    await page.emulateMedia(media);
    const complained = [];
    complaints.set(page, complained);
    page.on("console", (message) => {
      if (message.type() === "error") complained.push(message.text());
    });
    page.on("pageerror", (error) => complained.push(String(error)));
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (!["data:", "blob:"].includes(url.protocol) && url.origin !== origin) complained.push(`asked for ${url}`);
    });
    if (before) await page.addInitScript(before);
    await page.goto(origin + path);
    return page;
  }

  return {
    origin,
    page,
    /** Closes a page that must not have complained. */
    async done(page) {
      await page.close();
      assert.deepEqual(complaints.get(page), [], "errors on the console, or requests to other origins");
    },
    async close() {
      await context.close();
      server.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}

/** A picture of a page, kept beside what was built. */
export async function screenshot(page, name) {
  const folder = join(BUILT, "screenshots");
  await mkdir(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}
