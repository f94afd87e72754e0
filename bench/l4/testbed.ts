// Two network namespaces joined by a veth pair, MTU 1500: the client's and the server's. One testbed per peer, so that the
// peers can stay up side by side and be measured in turns.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { must, Server, until } from "../lib/process.ts";

/** nginx with a 12-byte body. */
export const HTTP_PORT = 8080;
/** nginx's own counters. */
export const STATUS_PORT = 8081;
/** iperf3 -s */
export const BULK_PORT = 5201;
/** Answers one byte with one byte and keeps the connection: bench/l4/idle-server.ts. */
export const IDLE_PORT = 9000;
export const SERVED_PORTS: readonly number[] = [HTTP_PORT, BULK_PORT, IDLE_PORT];

const BODY = "hello world\n";
const READY_SECONDS = 10;

export interface Node {
  readonly namespace: string;
  readonly namespacePath: string;
  readonly ip: string;
  /** Command prefix that enters the namespace; it execs, so the child's pid is the program's. */
  readonly enter: readonly string[];
}

export interface Testbed {
  readonly client: Node;
  readonly server: Node;
  /** For the files of whatever runs here. */
  readonly folder: string;
}

/** @param index 0..127, picks the subnet out of 198.18.0.0/16. */
export async function makeTestbed(name: string, index: number, parentFolder: string): Promise<Testbed & AsyncDisposable> {
  const folder = join(parentFolder, name);
  mkdirSync(folder, { recursive: true });
  const client = makeNode(`${name}-client`, `198.18.${index}.1`);
  const server = makeNode(`${name}-server`, `198.18.${index}.2`);
  joinNodes(client, server, index);
  const servers = startServers(server, folder);
  await Promise.all(SERVED_PORTS.map((port) => listening(server, port)));
  return {
    client,
    server,
    folder,
    [Symbol.asyncDispose]: async () => {
      await Promise.all(servers.map((one) => one.stop()));
      for (const node of [client, server]) must(["ip", "netns", "del", node.namespace]);
    },
  };
}

function makeNode(namespace: string, ip: string): Node {
  must(["ip", "netns", "add", namespace]);
  const namespacePath = `/run/netns/${namespace}`;
  return { namespace, namespacePath, ip, enter: ["nsenter", `--net=${namespacePath}`, "--"] };
}

function joinNodes(client: Node, server: Node, index: number): void {
  must(["ip", "link", "add", `c${index}`, "netns", client.namespace, "type", "veth", "peer", "name", `s${index}`, "netns", server.namespace]);
  configure(client, `c${index}`);
  configure(server, `s${index}`);
}

function configure(node: Node, device: string): void {
  const ip = (...args: string[]): string => must(["ip", "-n", node.namespace, ...args]);
  ip("link", "set", "lo", "up");
  ip("address", "add", `${node.ip}/24`, "dev", device);
  ip("link", "set", device, "mtu", "1500", "up");
  // Thousands of short connections a second must not run out of client ports.
  must([...node.enter, "sh", "-euc", "echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range; echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse"]);
}

function startServers(server: Node, folder: string): Server[] {
  const configuration = join(folder, "http.conf");
  writeFileSync(configuration, nginxHttp(folder));
  const start = (name: string, argv: readonly string[]): Server => new Server({ argv: [...server.enter, ...argv], logFile: join(folder, `${name}.log`) });
  return [
    start("http", ["nginx", "-p", folder, "-e", "stderr", "-c", configuration]),
    start("bulk", ["iperf3", "-s", "-p", `${BULK_PORT}`]),
    start("idle", [process.execPath, join(import.meta.dir, "idle-server.ts"), `${IDLE_PORT}`]),
  ];
}

const nginxHttp = (folder: string): string => `
daemon off;
user root;
pid ${folder}/http.pid;
worker_processes 1;
worker_rlimit_nofile 16384;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_body_temp_path ${folder}/t1; proxy_temp_path ${folder}/t2; fastcgi_temp_path ${folder}/t3; uwsgi_temp_path ${folder}/t4; scgi_temp_path ${folder}/t5;
  server { listen 127.0.0.1:${STATUS_PORT}; location / { stub_status; } }
  server {
    listen ${HTTP_PORT} backlog=4096;
    tcp_nodelay on;
    location / { return 200 "${BODY.replace("\n", "\\n")}"; }
  }
}
`;

/** Waits until something listens on `port` in the node, without connecting to it. */
export async function listening(node: Node, port: number, server?: Server): Promise<void> {
  const check = (): boolean => must([...node.enter, "ss", "-Htln", `sport = :${port}`]).trim() !== "";
  await until(check, `${node.namespace}: a listener on port ${port}`, READY_SECONDS, server);
}
