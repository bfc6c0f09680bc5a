// Compiles src twice: to modules in dist/esm, and to CommonJS in dist/cjs.
import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";

rmSync("dist", { recursive: true, force: true });
for (const [format, type] of [
  ["esm", "module"],
  ["cjs", "commonjs"],
]) {
  mkdirSync(`dist/${format}`, { recursive: true });
  // Node tells by the nearest package.json which of the two a file is.
  writeFileSync(`dist/${format}/package.json`, `${JSON.stringify({ type })}\n`);
  const tsc = ["node_modules/typescript/bin/tsc", "-p", `tsconfig.${format}.json`];
  const { status } = spawnSync(process.execPath, tsc, { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}
