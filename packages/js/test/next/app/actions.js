"use server";

import { withActionContext } from "bemi/next";
import { cookies } from "next/headers";

import { work } from "../work";

export const complete = withActionContext(
  "complete",
  async (form) => {
    globalThis.seen.push(await work(form.get("id")));
  },
  { context: async () => ({ user_id: (await cookies()).get("user")?.value }) },
);
