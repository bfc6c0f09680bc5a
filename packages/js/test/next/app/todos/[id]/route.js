import { withRouteContext } from "bemi/next";

import { work } from "../../../work";

export const PUT = withRouteContext(
  async (_request, { params }) => Response.json(await work((await params).id)),
  { context: async (request) => ({ user_id: request.cookies.get("user")?.value }) },
);
