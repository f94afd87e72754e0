// gRPC between programs that we did not write, through a waypoint: the interop cases of the gRPC project by its Go client and server, and
// grpcurl. GRPC_INTEROP_CLIENT and GRPC_INTEROP_SERVER name the two where they are not in the path.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { unsealed } from "../kit/box.ts";
import { until } from "../kit/until.ts";
import { freePort, takesConnections } from "../kit/ports.ts";
import { describeUnless, firstReason, needsProgram, type SkipReason } from "../kit/skip.ts";
import { WaypointFixture } from "../kit/waypoint.ts";

setDefaultTimeout(60_000);

const CLIENT = process.env["GRPC_INTEROP_CLIENT"] ?? "grpc-interop-client";
const SERVER = process.env["GRPC_INTEROP_SERVER"] ?? "grpc-interop-server";
const missing = (program: string, variable: string): SkipReason => (Bun.which(program) === null ? `needs the gRPC project's interop program ${program} (or ${variable})` : null);

const CASES = [
  "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
  "status_code_and_message", "special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service", "rpc_soak", "channel_soak",
];

/** As much of the service as is called here. */
const PROTO = `
syntax = "proto3";
package grpc.testing;
message Payload { int32 type = 1; bytes body = 2; }
message ResponseParameters { int32 size = 1; int32 interval_us = 2; }
message EchoStatus { int32 code = 1; string message = 2; }
message StreamingOutputCallRequest { repeated ResponseParameters response_parameters = 2; Payload payload = 3; EchoStatus response_status = 7; }
message StreamingOutputCallResponse { Payload payload = 1; }
service TestService {
  rpc StreamingOutputCall(StreamingOutputCallRequest) returns (stream StreamingOutputCallResponse);
  rpc FullDuplexCall(stream StreamingOutputCallRequest) returns (stream StreamingOutputCallResponse);
}
`;

describeUnless(firstReason(unsealed, missing(CLIENT, "GRPC_INTEROP_CLIENT"), missing(SERVER, "GRPC_INTEROP_SERVER"), needsProgram("grpcurl")))("gRPC of others through a waypoint", () => {
  let server: Bun.Subprocess;
  let waypoint: WaypointFixture;
  let directory: string;

  beforeAll(async () => {
    const port = await freePort();
    server = Bun.spawn([SERVER, `-port=${port}`], { stdout: "ignore", stderr: "ignore" });
    await until("the interop server to listen", 10_000, () => takesConnections(port));
    waypoint = new WaypointFixture({ endpoints: [{ port }], portName: "grpc" });
    directory = mkdtempSync(join(tmpdir(), "weft-grpc-"));
    writeFileSync(join(directory, "test.proto"), PROTO);
  });

  afterAll(async () => {
    await waypoint[Symbol.asyncDispose]();
    server.kill();
    rmSync(directory, { recursive: true });
  });

  test.each(CASES)("%s", async (name) => {
    const client = Bun.spawn([CLIENT, "-server_host=127.0.0.1", `-server_port=${waypoint.port}`, `-test_case=${name}`, "-soak_iterations=50", "-soak_num_threads=5", "-soak_per_iteration_max_acceptable_latency_ms=5000", "-soak_overall_timeout_seconds=50"], { stdout: "pipe", stderr: "pipe" });
    const [exitCode, output] = [await client.exited, await new Response(client.stderr).text()];
    expect(exitCode, output).toBe(0);
  });

  const grpcurl = async (method: string, input: string, ...more: string[]): Promise<{ readonly exitCode: number; readonly stdout: string; readonly stderr: string }> => {
    const run = Bun.spawn(["grpcurl", "-plaintext", "-import-path", directory, "-proto", "test.proto", "-d", "@", ...more, `127.0.0.1:${waypoint.port}`, `grpc.testing.TestService/${method}`], { stdin: Buffer.from(input), stdout: "pipe", stderr: "pipe" });
    const [stdout, stderr] = await Promise.all([new Response(run.stdout).text(), new Response(run.stderr).text()]);
    return { exitCode: await run.exited, stdout, stderr };
  };
  const sizes = (...each: number[]): string => JSON.stringify({ response_parameters: each.map((size) => ({ size })) });

  test("grpcurl: a stream of answers, and streams both ways", async () => {
    const stream = await grpcurl("StreamingOutputCall", sizes(1, 10, 100));
    expect([stream.exitCode, stream.stdout.match(/"body"/g)?.length]).toEqual([0, 3]);
    const duplex = await grpcurl("FullDuplexCall", sizes(1) + sizes(2, 3));
    expect([duplex.exitCode, duplex.stdout.match(/"body"/g)?.length]).toEqual([0, 3]);
  });

  test("grpcurl: a status, and a deadline that the server does not keep", async () => {
    const failed = await grpcurl("FullDuplexCall", JSON.stringify({ response_status: { code: 9, message: "caf\u00e9 is closed" } }));
    expect(failed.stderr).toContain("FailedPrecondition");
    expect(failed.stderr).toContain("caf\u00e9 is closed");
    const slow = await grpcurl("StreamingOutputCall", JSON.stringify({ response_parameters: [{ size: 1, interval_us: 5_000_000 }] }), "-max-time", "0.5");
    expect(slow.stderr).toContain("DeadlineExceeded");
  });
});
