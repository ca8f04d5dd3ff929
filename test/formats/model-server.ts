import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";

/** A server of files in memory, as good or bad as a test wants it. */
export interface ModelServer {
  /** The URL of its folder. */
  readonly url: string;
  readonly files: Map<string, Uint8Array>;
  /** What was asked for since it was cleared: `GET name` with the range. */
  readonly requests: string[];
  /** Whether it has parts of files. */
  ranges: boolean;
  /** Of all files; null for none. */
  etag: string | null;
  /** Bytes of the next answer's body after which no more come, and the connection breaks. */
  breakAfter: number | null;
  /** Breaks it, where it is not to break by itself: what a browser has not read yet is lost to it. */
  breakNow: (() => void) | null;
  /** Whether it breaks by itself. */
  breaksAtOnce: boolean;
  /** The status of every answer, where it is no success. */
  status: number | null;
  /** Whether texts are sent compressed. */
  compressed: boolean;
  close(): Promise<void>;
}

export async function modelServer(files: Readonly<Record<string, Uint8Array>>): Promise<ModelServer> {
  const http = createServer((request, response) => {
    const name = decodeURIComponent(new URL(request.url ?? "/", "http://x").pathname.slice(1));
    const { range } = request.headers;
    server.requests.push(`${name}${range ? ` ${range}` : ""}`);
    response.setHeader("access-control-allow-origin", "*");
    response.setHeader("access-control-expose-headers", "etag, content-range");
    const file = server.files.get(name);
    if (server.status !== null || !file) return response.writeHead(server.status ?? 404).end();
    if (server.etag) response.setHeader("etag", server.etag);
    const [, first, last] = (server.ranges && /^bytes=(\d+)-(\d*)$/.exec(range ?? "")) || [];
    let body = file;
    if (first !== undefined) {
      if (Number(first) >= file.length) return response.writeHead(416).end();
      const end = Math.min(file.length - 1, last ? Number(last) : file.length - 1);
      body = file.subarray(Number(first), end + 1);
      response.setHeader("content-range", `bytes ${first}-${end}/${file.length}`);
    } else if (server.compressed && name.endsWith(".json")) {
      body = gzipSync(file);
      response.setHeader("content-encoding", "gzip");
    }
    response.writeHead(first === undefined ? 200 : 206, { "content-length": body.length });
    const { breakAfter } = server;
    if (breakAfter === null || breakAfter >= body.length) return response.end(body);
    server.breakAfter = null;
    server.breakNow = () => request.socket.end();
    return response.write(body.subarray(0, breakAfter), () => {
      if (server.breaksAtOnce) server.breakNow?.();
    });
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const server: ModelServer = {
    url: `http://127.0.0.1:${(http.address() as AddressInfo).port}/`,
    files: new Map(Object.entries(files)),
    requests: [],
    ranges: true,
    etag: '"1"',
    breakAfter: null,
    breakNow: null,
    breaksAtOnce: true,
    status: null,
    compressed: false,
    async close() {
      http.closeAllConnections();
      if (http.listening) await new Promise((resolve) => http.close(resolve));
    },
  };
  return server;
}
