// Services that waypoints ask, by the public protocols: an external authoriser and a rate limit service over gRPC, each as the test says.

import { createServer, type Http2Server, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { Authorization, type CheckRequest, type CheckResponseSchema } from "../../src/wire/protobuf/envoy/service/auth/v3/external_auth_pb.ts";
import { RateLimitService, type RateLimitRequest, type RateLimitResponseSchema } from "../../src/wire/protobuf/envoy/service/ratelimit/v3/rls_pb.ts";

export interface DecisionService<Q> extends AsyncDisposable {
  readonly port: number;
  /** What it was asked, in order. */
  readonly asked: Q[];
  /** Metadata of each question. */
  readonly metadata: Headers[];
  /** Connections that it had. */
  readonly connections: () => number;
  /** Ends its connections; clients are told or not. */
  cut(how: "goaway" | "reset"): void;
  stop(): Promise<void>;
}

interface Address {
  readonly host: string;
  readonly port: number;
}

const ANY_PORT: Address = { host: "127.0.0.1", port: 0 };

type CheckAnswer = MessageInitShape<typeof CheckResponseSchema>;
type LimitAnswer = MessageInitShape<typeof RateLimitResponseSchema>;

/** @param answer may throw a ConnectError, or never settle. */
export function authorizerService(answer: (request: CheckRequest) => CheckAnswer | Promise<CheckAnswer>, at: Address = ANY_PORT): Promise<DecisionService<CheckRequest>> {
  return serve(at, (note) => (router) => void router.service(Authorization, {
    check(request, { requestHeader }) {
      note(request, requestHeader);
      return answer(request);
    },
  }));
}

export function rateLimitService(answer: (request: RateLimitRequest) => LimitAnswer | Promise<LimitAnswer>, at: Address = ANY_PORT): Promise<DecisionService<RateLimitRequest>> {
  return serve(at, (note) => (router) => void router.service(RateLimitService, {
    shouldRateLimit(request, { requestHeader }) {
      note(request, requestHeader);
      return answer(request);
    },
  }));
}

async function serve<Q>({ host, port }: Address, routes: (note: (question: Q, metadata: Headers) => void) => (router: ConnectRouter) => void): Promise<DecisionService<Q>> {
  const asked: Q[] = [];
  const metadata: Headers[] = [];
  const sessions = new Set<ServerHttp2Session>();
  let connections = 0;
  const server: Http2Server = createServer(connectNodeAdapter({
    routes: routes((question, headers) => {
      asked.push(question);
      metadata.push(headers);
    }),
  }));
  server.on("session", (session) => {
    connections++;
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
    session.on("error", () => {});
  });
  await new Promise<void>((resolve) => server.listen(port, host, resolve));
  const stop = async (): Promise<void> => {
    for (const session of sessions) session.destroy();
    server.close();
  };
  return {
    port: (server.address() as AddressInfo).port, asked, metadata, connections: () => connections,
    cut: (how) => {
      for (const session of [...sessions]) {
        if (how === "goaway") session.close();
        else session.destroy();
      }
    },
    stop, [Symbol.asyncDispose]: stop,
  };
}

/** Name and value as the messages have them. */
export const headerOption = (key: string, value: string, append?: boolean) => ({ header: { key, value }, ...(append === undefined ? {} : { append }) });
