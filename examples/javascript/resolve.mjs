// Examples find what they import in packages/js, the client of this repository included. In a project
// of your own it is installed, and this is not needed.

import { register } from "node:module";

const hooks = `
  const parentURL = ${JSON.stringify(new URL("../../packages/js/package.json", import.meta.url).href)};
  const bare = (name) => !/^([./]|[a-z]+:)/.test(name);
  export const resolve = (name, context, next) =>
    next(name, bare(name) && context.parentURL?.includes("/examples/") ? { ...context, parentURL } : context);
`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
