// HAProxy and nginx as TLS tunnels: one TLS 1.3 connection with client certificates per TCP connection, each served port
// mapped by hand. No identity, policy or pooling: the plain alternative to a mesh.

import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { descriptorLimit, type Server } from "../lib/process.ts";
import { listening, SERVED_PORTS, type Testbed } from "../l4/testbed.ts";
import { tunnelCertificates, type TunnelCertificates } from "./certificates.ts";
import type { Peer } from "./peer.ts";
import { flushRules, redirectServedPorts, Setup } from "./running.ts";

/** Threads or processes, as many as the reference ztunnel takes on a small node. */
const WORKERS = 2;
/** The captured connection arrives here at the client's side, ... */
const CLIENT_PORTS = new Map(SERVED_PORTS.map((port) => [port, port + 20_000]));
/** ... and leaves over TLS to here at the server's. */
const SERVER_PORTS = new Map(SERVED_PORTS.map((port) => [port, port + 30_000]));

interface TunnelProgram {
  readonly name: string;
  readonly missing: () => string | null;
  readonly idleMissing: () => string | null;
  readonly argv: (configuration: string, bed: Testbed) => readonly string[];
  readonly clientSide: (bed: Testbed, certificates: TunnelCertificates) => string;
  readonly serverSide: (bed: Testbed, certificates: TunnelCertificates) => string;
}

function tunnelPeer(program: TunnelProgram): Peer {
  return {
    name: program.name,
    command: () => program.name,
    missing: () => program.missing() ?? (Bun.which("openssl") === null ? "needs openssl" : null),
    idleMissing: program.idleMissing,
    tunnelPorts: [...SERVER_PORTS.values()],
    hasSameNodePath: false,
    start: async (bed) => {
      await using setup = new Setup();
      const certificates = tunnelCertificates(bed.folder);
      setup.undo(() => flushRules(bed.client));
      redirectServedPorts(bed, CLIENT_PORTS);
      const start = (side: "client" | "server", text: string): Server => {
        const configuration = join(bed.folder, `${program.name}-${side}.conf`);
        writeFileSync(configuration, text);
        return setup.server({ argv: [...bed[side].enter, ...program.argv(configuration, bed)], logFile: join(bed.folder, `${program.name}-${side}.log`) });
      };
      const client = start("client", program.clientSide(bed, certificates));
      const server = start("server", program.serverSide(bed, certificates));
      for (const port of CLIENT_PORTS.values()) await listening(bed.client, port, client);
      for (const port of SERVER_PORTS.values()) await listening(bed.server, port, server);
      return setup.running();
    },
  };
}

/** Above the idle row's need; each takes two descriptors, and HAProxy refuses to start when the limit is lower. */
const HAPROXY_CONNECTIONS_MAX = 12_000;
const HAPROXY_DESCRIPTORS = 2 * HAPROXY_CONNECTIONS_MAX + 100;

const haproxyMaxconn = (): string => (descriptorLimit() >= HAPROXY_DESCRIPTORS ? `maxconn ${HAPROXY_CONNECTIONS_MAX}` : "");

const haproxyHead = (): string => `
global
  ${haproxyMaxconn()}
  nbthread ${WORKERS}
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode tcp
  ${haproxyMaxconn()}
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
`;

export const haproxy: Peer = tunnelPeer({
  name: "haproxy",
  missing: () => (Bun.which("haproxy") === null ? "needs haproxy" : null),
  idleMissing: () => {
    const limit = descriptorLimit();
    return limit >= HAPROXY_DESCRIPTORS ? null : `one process needs ${HAPROXY_DESCRIPTORS} descriptors for them, the limit is ${limit}`;
  },
  argv: (configuration) => ["haproxy", "-db", "-f", configuration],
  clientSide: (bed, { ca, client }) =>
    haproxyHead() +
    SERVED_PORTS.map(
      (port) => `
listen p${port}
  bind :${CLIENT_PORTS.get(port)}
  server s ${bed.server.ip}:${SERVER_PORTS.get(port)} ssl verify required ca-file ${ca} crt ${client}
`,
    ).join(""),
  serverSide: (_, { ca, server }) =>
    haproxyHead() +
    SERVED_PORTS.map(
      (port) => `
listen p${port}
  bind :${SERVER_PORTS.get(port)} ssl verify required ca-file ${ca} crt ${server}
  server s 127.0.0.1:${port}
`,
    ).join(""),
});

const STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so";

const nginxHead = (bed: Testbed, side: string): string => `
load_module ${STREAM_MODULE};
daemon off;
user root;
pid ${bed.folder}/nginx-${side}.pid;
worker_processes ${WORKERS};
events { worker_connections 16384; }
`;

const nginxStream = (servers: readonly string[]): string => `
stream {
  proxy_timeout 1h;
  proxy_buffer_size 64k;
  tcp_nodelay on;
  ${servers.join("\n")}
}
`;

export const nginx: Peer = tunnelPeer({
  name: "nginx",
  missing: () => {
    if (Bun.which("nginx") === null) return "needs nginx";
    return existsSync(STREAM_MODULE) ? null : "needs nginx's stream module (libnginx-mod-stream)";
  },
  // Its two worker processes share the connections.
  idleMissing: () => null,
  argv: (configuration, bed) => ["nginx", "-p", bed.folder, "-e", "stderr", "-c", configuration],
  clientSide: (bed, { ca, client }) =>
    nginxHead(bed, "client") +
    nginxStream(
      SERVED_PORTS.map(
        (port) => `server {
    listen ${CLIENT_PORTS.get(port)} backlog=4096;
    proxy_pass ${bed.server.ip}:${SERVER_PORTS.get(port)};
    proxy_ssl on; proxy_ssl_protocols TLSv1.3; proxy_ssl_verify on; proxy_ssl_name server;
    proxy_ssl_trusted_certificate ${ca}; proxy_ssl_certificate ${client}; proxy_ssl_certificate_key ${client};
  }`,
      ),
    ),
  serverSide: (bed, { ca, server }) =>
    nginxHead(bed, "server") +
    nginxStream(
      SERVED_PORTS.map(
        (port) => `server {
    listen ${SERVER_PORTS.get(port)} ssl backlog=4096;
    proxy_pass 127.0.0.1:${port};
    ssl_protocols TLSv1.3; ssl_verify_client on; ssl_client_certificate ${ca}; ssl_certificate ${server}; ssl_certificate_key ${server};
  }`,
      ),
    ),
});
