// The server behind both proxies: nginx, one worker, with HTTP/1.1, HTTP/2 and gRPC, plain and under mutual TLS; and, as a collector,
// whatever takes spans and answers 200.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Server } from "../lib/process.ts";
import { type Materials, TRACES_PATH } from "./features.ts";

/** On the loopback of the benchmark's own namespace: a workload's address may not be loopback itself. */
export const BACKEND = "198.18.7.1";
export const BACKEND_PORTS = { h1: 8080, h2: 8081, tls: 8443 } as const;

const BODY_BYTES = 1024;
export const LARGE_BODY_BYTES = 1_048_576;
export const LARGE_BODY_PATH = "/large";
export const GRPC_PATH = "/bench.Echo/Say";

/** One gRPC message: not compressed, its length, its bytes. */
export function grpcMessage(bytes: number): Buffer {
  const message = Buffer.alloc(5 + bytes, "x");
  message[0] = 0;
  message.writeUInt32BE(bytes, 1);
  return message;
}

export function startNginx({ directory, root, server }: Materials): Server {
  const files = join(directory, "files");
  mkdirSync(files);
  writeFileSync(join(files, "small"), Buffer.alloc(BODY_BYTES, "x"));
  writeFileSync(join(files, "large"), Buffer.alloc(LARGE_BODY_BYTES, "x"));
  writeFileSync(join(files, "message"), grpcMessage(BODY_BYTES));
  const { h1, h2, tls } = BACKEND_PORTS;
  // A file answers no POST: what becomes of the error is the answer.
  const locations = `
      location / { return 200 "${"x".repeat(BODY_BYTES)}"; }
      location = ${LARGE_BODY_PATH} { try_files /large =404; }
      location = ${GRPC_PATH} { default_type application/grpc; add_trailer grpc-status 0; try_files /message =404; error_page 405 =200 /message; }
      location = /message { default_type application/grpc; add_trailer grpc-status 0; }`;
  const config = join(directory, "nginx.conf");
  writeFileSync(config, `daemon off; user root; worker_processes 1; pid ${directory}/nginx.pid; error_log ${directory}/nginx.err; worker_rlimit_nofile 16384; events { worker_connections 8192; }
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600; root ${files}; sendfile on; http2_max_concurrent_streams 4096; open_file_cache max=16;
  server { listen ${BACKEND}:${h1} backlog=4096; ${locations} location = ${TRACES_PATH} { return 200; } }
  server { listen ${BACKEND}:${h2} http2 backlog=4096; ${locations} }
  server { listen ${BACKEND}:${tls} ssl http2 backlog=4096; ssl_certificate ${server.chain}; ssl_certificate_key ${server.key};
    ssl_client_certificate ${root}; ssl_verify_client on; ssl_verify_depth 3; ssl_protocols TLSv1.3; ${locations} }
}\n`);
  return new Server({ argv: ["nginx", "-p", directory, "-c", config], logFile: join(directory, "nginx.log") });
}
