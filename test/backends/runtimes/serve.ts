import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
};

/** What makes a page cross-origin isolated, and with it SharedArrayBuffer available. */
const ISOLATION = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-resource-policy": "same-origin",
};

/** A server of the files below a folder on the loopback interface. */
export interface Server {
  readonly url: string;
  close(): void;
}

/**
 * Serves a folder.
 * @param isolated whether its pages are cross-origin isolated
 * @param missing the end of the paths that are not found although they are there
 */
export async function serve(root: string, isolated: boolean, missing?: string): Promise<Server> {
  const server = createServer(async (request, response) => {
    const path = join(root, normalize(new URL(request.url ?? "/", "http://localhost").pathname));
    const type = TYPES[extname(path)] ?? "text/plain";
    const isThere = (await stat(path).catch(() => undefined))?.isFile();
    const isFound = isThere && !(missing && path.endsWith(missing));
    response.writeHead(isFound ? 200 : 404, { "content-type": type, ...(isolated ? ISOLATION : {}) });
    if (isFound) createReadStream(path).pipe(response);
    else response.end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
