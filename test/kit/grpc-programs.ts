// A gRPC server and client for programs.ts, by connect-node: unary calls over plain HTTP/2, many at once on one connection.
// The service is one whose messages are in this repository already; nobody signs anything.

import { createServer } from "node:http2";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport } from "@connectrpc/connect-node";
import { IstioCertificateService } from "../../src/wire/protobuf/istio/v1/auth/ca_pb.ts";
import { authorizerService, headerOption, rateLimitService } from "./decision-services.ts";
import type { Program } from "./program.ts";

const say = (line: string) => void process.stdout.write(`${line}\n`);

export const grpcPrograms: Readonly<Record<string, Program>> = {
  /** grpc-serve PORT: answers with what it was asked; an empty question is an error with status and trailers. */
  "grpc-serve": ([port]) => {
    const adapter = connectNodeAdapter({
      routes: (router) => router.service(IstioCertificateService, {
        createCertificate(request) {
          if (request.csr === "") throw new ConnectError("nothing was asked", Code.InvalidArgument);
          return { certChain: [request.csr, "answered"] };
        },
      }),
    });
    createServer(adapter).listen(Number(port), () => say("listening"));
  },

  /** grpc-authorizer PORT: allows `x-user: anna` and calls her `x-role: admin`; refuses others with 401 and who they said they were. */
  "grpc-authorizer": async ([port]) => {
    await authorizerService(({ attributes }) => {
      const user = attributes?.request?.http?.headers["x-user"] ?? "nobody";
      if (user === "anna") return { status: { code: 0 }, httpResponse: { case: "okResponse", value: { headers: [headerOption("x-role", "admin")] } } };
      return { status: { code: 16 }, httpResponse: { case: "deniedResponse", value: { status: { code: 401 }, body: `not ${user}` } } };
    }, { host: "0.0.0.0", port: Number(port) });
    say("listening");
  },

  /** grpc-rate-limit PORT COUNT: the first COUNT requests of each descriptor are within the limit. */
  "grpc-rate-limit": async ([port, count]) => {
    const counts = new Map<string, number>();
    await rateLimitService(({ domain, descriptors }) => {
      const key = `${domain} ${JSON.stringify(descriptors.map(({ entries }) => entries.map(({ key: name, value }) => [name, value])))}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
      return { overallCode: counts.get(key)! <= Number(count) ? 1 : 2 };
    }, { host: "0.0.0.0", port: Number(port) });
    say("listening");
  },

  /** grpc-call HOST PORT COUNT: calls, all at once; then one that has to fail with its status. Prints `ok COUNT`. */
  "grpc-call": async ([host, port, count]) => {
    const base = `http://${host!.includes(":") ? `[${host}]` : host}:${port}`;
    const client = createClient(IstioCertificateService, createGrpcTransport({ baseUrl: base, defaultTimeoutMs: 10_000 }));
    const verdict = await (async () => {
      const answers = await Promise.all(Array.from({ length: Number(count) }, async (_, number) => {
        const csr = `${number}.`.repeat(1 + (number % 2_000));
        const { certChain } = await client.createCertificate({ csr });
        return certChain[0] === csr;
      }));
      const refused = await client.createCertificate({ csr: "" }).then(() => null, (error: unknown) => ConnectError.from(error).code);
      if (refused !== Code.InvalidArgument) return `failed: the empty question was answered with ${refused}`;
      return answers.every(Boolean) ? `ok ${answers.length}` : "failed: an answer differs";
    })().catch((error: unknown) => `failed: ${error instanceof Error ? error.message : String(error)}`);
    say(verdict);
    process.exit(verdict.startsWith("failed") ? 1 : 0);
  },
};
