// Generates TypeScript from the .proto files under src/wire/protobuf, beside each of them. The output is committed: a build needs
// neither protoc nor this script. Needs protoc and its google/protobuf files (Debian: protobuf-compiler, libprotobuf-dev). Run: bun scripts/generate-protobuf.ts

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

const repository = join(import.meta.dir, "..");
const source = join(repository, "src/wire/protobuf");
const plugin = join(repository, "node_modules/.bin/protoc-gen-es");

if (Bun.which("protoc") === null) throw new Error("protoc is not on the PATH; on Debian: apt-get install protobuf-compiler libprotobuf-dev");
if (!existsSync(plugin)) throw new Error(`${plugin} is missing; run npm ci first`);

const files = readdirSync(source, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".proto")).sort();
if (files.length === 0) throw new Error(`no .proto file under ${source}`);

const run = Bun.spawnSync({
  cmd: ["protoc", `--proto_path=${source}`, `--plugin=protoc-gen-es=${plugin}`, `--es_out=${source}`, "--es_opt=target=ts,import_extension=ts", ...files],
  stdout: "inherit",
  stderr: "inherit",
});
if (!run.success) throw new Error(`protoc failed with status ${run.exitCode}`);
console.log(`generated ${files.length} file(s): ${files.join(", ")}`);
