// The three small HTTP servers of a process: administration on loopback, metrics, readiness. What they show is handed in.

import { type Context, Hono } from "hono";
import { isIpv6, isLoopback, parseIp, type SocketAddress } from "../core/ip.ts";
import { ok, type Result } from "../core/result.ts";
import type { MetricsSnapshot } from "../telemetry/metrics-snapshot.ts";
import { acceptsGzip, type Exposition, type GaugeSource, negotiateFormat } from "../telemetry/exposition.ts";
import { type ClusterView, clustersText, mergeClusters } from "./clusters-view.ts";
import { serveHttp } from "./http-port.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { Log } from "./logger.ts";
import type { ProcessListener, ProcessListeners } from "./process-listeners.ts";

/** What is being answered when the process ends gets this long; when another process serves the port, a client's next request too. */
export const ADMIN_STOP_MS = 500;
export const ADMIN_HANDOVER_MS = 30_000;

export interface AdminSources {
  readonly log: Log;
  readonly lifecycle: Lifecycle;
  readonly configDump: () => Promise<unknown>;
  readonly version: string;
  /** Snapshots of every thread's metrics. */
  readonly snapshots: () => Promise<readonly MetricsSnapshot[]>;
  readonly exposition: Exposition;
  readonly processMetrics: readonly GaugeSource[];
  /** The services that requests go to, of every data thread. Absent where no requests are carried. */
  readonly clusters?: () => Promise<readonly (readonly ClusterView[])[]>;
  /** Asks the CA for every certificate of this node anew; returns how many. Absent where there are none. */
  readonly renewCertificates?: () => number;
}

function adminApp(sources: AdminSources, port: number): Hono {
  const { log, lifecycle } = sources;
  const app = new Hono();
  // A page in somebody's browser can resolve its own name to 127.0.0.1; it cannot change the Host header.
  app.use(async (context, next) => {
    const refusal = judgeHost(context.req.header("host")) ?? judgeOrigin(context.req.header("origin"), port);
    if (refusal !== null) return context.text(`${refusal}\n`, 403);
    await next();
    context.header("X-Content-Type-Options", "nosniff");
    context.header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'");
  });
  app.get("/", (context) => context.html(indexPage(sources.version)));
  app.get("/healthz", (context) => context.text("ok\n"));
  app.get("/config_dump", async (context) => context.text(`${JSON.stringify(await sources.configDump(), null, 2)}\n`, 200, { "Content-Type": "application/json" }));
  app.get("/logging", (context) => context.text(`current log level is ${log.filter}\n`));
  app.post("/logging", (context) => {
    // Nothing asked for is a question: istioctl asks with an empty level.
    const wrong = log.changeFilter(context.req.query("level") ?? "", context.req.query("reset") === undefined ? "current" : "initial");
    if (wrong !== null) return context.text(`${wrong}\n`, 400);
    return context.text(`current log level is ${log.filter}\n`);
  });
  app.get("/clusters", async (context) => {
    if (sources.clusters === undefined) return context.text("this role carries no requests\n", 404);
    const clusters = mergeClusters(await sources.clusters());
    if (context.req.query("format") === "json") return context.text(`${JSON.stringify({ clusters }, null, 2)}\n`, 200, { "Content-Type": "application/json" });
    return context.text(clustersText(clusters));
  });
  app.get("/stats", async (context) => {
    const { body } = await sources.exposition.render(await sources.snapshots(), sources.processMetrics, "prometheus");
    const filter = context.req.query("filter") ?? "";
    const lines = body.split("\n").filter((line) => line !== "" && !line.startsWith("#") && line.includes(filter));
    return context.text(lines.map((line) => `${line}\n`).join(""));
  });
  app.get("/stats/prometheus", (context) => renderMetrics(sources, context));
  app.post("/certificates/renew", (context) => {
    if (sources.renewCertificates === undefined) return context.text("this role holds no certificates\n", 404);
    return context.text(`renewing ${sources.renewCertificates()}\n`);
  });
  app.post("/quitquitquit", (context) => {
    lifecycle.requestStop({ message: "POST /quitquitquit", successorPid: null, exitStatus: 0 });
    return context.text("shutdown now\n");
  });
  app.get("/quitquitquit", (context) => context.text("use POST\n", 405, { Allow: "POST" }));
  app.onError((error, context) => context.text(`${error.message}\n`, 500));
  return app;
}

function metricsApp(sources: AdminSources): Hono {
  const app = new Hono();
  for (const path of ["/metrics", "/stats/prometheus"]) app.get(path, (context) => renderMetrics(sources, context));
  app.onError((error, context) => context.text(`${error.message}\n`, 500));
  return app;
}

async function renderMetrics(sources: AdminSources, context: Context): Promise<Response> {
  const format = negotiateFormat(context.req.header("accept") ?? null);
  const { body, contentType } = await sources.exposition.render(await sources.snapshots(), sources.processMetrics, format);
  const headers = { "Content-Type": contentType, Vary: "Accept, Accept-Encoding" };
  if (!acceptsGzip(context.req.header("accept-encoding") ?? null)) return context.body(body, 200, headers);
  return context.body(new Uint8Array(Bun.gzipSync(body, { level: 1 })), 200, { ...headers, "Content-Encoding": "gzip" });
}

/** 200 while ready; else 503 with what is waited for, one a line. Then what is amiss without holding anything up. */
function readinessApp({ lifecycle }: Pick<AdminSources, "lifecycle">): Hono {
  const app = new Hono();
  app.get("/healthz/ready", (context) => {
    // After a handover the node is as ready as before; whoever asks next asks the successor.
    if (lifecycle.reason !== null && lifecycle.reason.successorPid === null) return context.text(`stopping: ${lifecycle.reason.message}\n`, 503);
    const { ready, tasks, remarks } = lifecycle.readiness;
    const lines = [...(ready ? ["ready"] : tasks.map((task) => `not ready: ${task}`)), ...remarks];
    return context.text(`${lines.join("\n")}\n`, ready ? 200 : 503);
  });
  return app;
}

export interface AdminServers {
  readonly adminPort: number;
  readonly metricsPort: number;
  readonly readinessPort: number;
  stop(deadlineMs?: number): Promise<void>;
}

export interface AdminAddresses {
  readonly admin: SocketAddress;
  readonly metrics: SocketAddress;
  readonly readiness: SocketAddress;
}

export interface AdminListeners {
  readonly admin: ProcessListener;
  readonly metrics: ProcessListener;
  readonly readiness: ProcessListener;
}

/** Opens the three; nothing is accepted yet. A port in use, or one refused, is the operator's to mend: the error names it. */
export function listenAdmin(addresses: AdminAddresses, listeners: ProcessListeners): Result<AdminListeners, string> {
  const admin = listeners.listen("admin", addresses.admin);
  if (!admin.ok) return admin;
  const metrics = listeners.listen("metrics", addresses.metrics);
  if (!metrics.ok) return metrics;
  const readiness = listeners.listen("readiness", addresses.readiness);
  if (!readiness.ok) return readiness;
  return ok({ admin: admin.value, metrics: metrics.value, readiness: readiness.value });
}

export async function startAdmin({ admin, metrics, readiness }: AdminListeners, sources: AdminSources): Promise<AdminServers> {
  const ports = await Promise.all([
    serveHttp(admin.fd, adminApp(sources, admin.port)),
    serveHttp(metrics.fd, metricsApp(sources)),
    serveHttp(readiness.fd, readinessApp(sources)),
  ]);
  return {
    adminPort: admin.port, metricsPort: metrics.port, readinessPort: readiness.port,
    stop: async (deadlineMs = ADMIN_STOP_MS) => void (await Promise.all(ports.map((port) => port.stop(deadlineMs)))),
  };
}

/** Null when the Host header names loopback. Its port is not looked at: a port-forward has its own. */
export function judgeHost(host: string | undefined): string | null {
  if (host === undefined) return "a Host header is needed";
  const split = /^(\[[0-9A-Fa-f:.]+\]|[^:]+)(?::(\d{1,5}))?$/.exec(host);
  if (split === null) return "the Host header is malformed";
  const name = split[1]!.replace(/^\[|\]$/g, "");
  const ip = parseIp(name);
  const own = name.toLowerCase() === "localhost" || (ip !== null && isLoopback(ip) && isIpv6(ip) === split[1]!.startsWith("["));
  if (!own) return `this port answers to localhost, not to ${JSON.stringify(name.slice(0, 100))}`;
  return null;
}

/** A browser names the page that asks; no page has any business here but our own. */
export function judgeOrigin(origin: string | undefined, port: number): string | null {
  if (origin === undefined) return null;
  const own = /^http:\/\/(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\]):(\d{1,5})$/.exec(origin);
  return own !== null && Number(own[2]) === port ? null : "cross-origin requests are refused";
}

function indexPage(version: string): string {
  const rows: [string, string][] = [
    ["GET /config_dump", "workloads, services, policies, certificates (without keys), live connections, settings"],
    ["GET /clusters", "services that requests go to: endpoints with health, ejection and load, limits; ?format=json"],
    ["GET /stats?filter=TEXT", "metrics, one a line, those that hold the text; /stats/prometheus as on port 15020"],
    ["GET /logging", "the log filter"],
    ["POST /logging?level=FILTER", "change it, e.g. access=off or debug; POST /logging?reset puts it back"],
    ["POST /certificates/renew", "renews every certificate held"],
    ["POST /quitquitquit", "drain and end"],
    ["GET /healthz", "ok while this process answers"],
  ];
  const body = rows.map(([request, what]) => `<tr><td><code>${request}</code></td><td>${what}</td></tr>`).join("");
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>weft</title><style>body{font-family:sans-serif}td{padding:.2em 1em}</style></head><body><h1>weft ${version}</h1><table>${body}</table><p>Metrics are on port 15020 (<code>/metrics</code>), readiness on 15021 (<code>/healthz/ready</code>).</p></body></html>`;
}
