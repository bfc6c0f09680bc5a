import { complete } from "./actions";

export default function Page() {
  return (
    <form action={complete}>
      <input name="id" />
    </form>
  );
}
