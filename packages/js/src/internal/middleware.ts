/** What Express and its like take as a middleware, without the types of any of them. */

import { withContext } from "../context/current.js";
import { customised } from "../context/request.js";

export type Middleware<Request> = (
  request: Request,
  response: unknown,
  next: (error?: unknown) => void,
) => void;

/** A middleware whose requests have what is said of them as their context, and no more. */
export function contextOf<Request>(context: (request: Request) => object): Middleware<Request> {
  if (typeof context !== "function") {
    throw new TypeError("the context of requests is a function that is given the request");
  }
  return (request, _response, next) => {
    withContext(customised(context, request), () => next());
  };
}
