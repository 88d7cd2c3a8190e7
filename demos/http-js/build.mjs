// node build.mjs SOURCE WIT OUTPUT: makes a component of a script.

import { readFile, writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";

const [source, witPath, output] = process.argv.slice(2);
const script = await readFile(source, "utf8");
const { component } = await componentize(script, { witPath, worldName: "wasi:http/proxy@0.2.10" });
await writeFile(output, component);
