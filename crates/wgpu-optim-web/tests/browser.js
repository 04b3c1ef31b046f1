// A browser with WebGPU, and a server of what was built. A page that complains on the console, or asks another origin for
// anything, fails its test.
//
// CHROMIUM names the browser. WEBGPU_ADAPTER=hardware takes the machine's GPU in place of SwiftShader.

import assert from "node:assert/strict";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, rm, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { chromium } from "playwright-core";

/** What scripts/web.sh built. */
export const BUILT = process.env.WEB_BUILT ?? new URL("../../../target/web", import.meta.url).pathname;

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".wasm": "application/wasm",
  ".wgsl": "text/plain; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** Serves a folder, and what `pages` holds: texts by path. */
export async function serve(folder, pages = {}) {
  const server = createServer(async (request, response) => {
    let path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
    if (path.endsWith("/")) path += "index.html";
    const type = { "content-type": TYPES[extname(path)] ?? "application/octet-stream" };
    if (path in pages) return response.writeHead(200, type).end(pages[path]);
    const file = join(folder, path);
    try {
      if (!(await stat(file)).isFile()) throw new Error("not a file");
    } catch {
      return response.writeHead(404).end("not found");
    }
    createReadStream(file).pipe(response.writeHead(200, type));
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return { server, origin: `http://localhost:${server.address().port}` };
}

/** Opens a browser, once a file of tests: `page` opens pages, `close` ends it. */
export async function open(folder = BUILT, pages = {}) {
  const { server, origin } = await serve(folder, { "/blank.html": "<!doctype html><link rel=icon href=data:,>", ...pages });
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
