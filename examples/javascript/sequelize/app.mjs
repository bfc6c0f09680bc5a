// A to-do list on Sequelize: each request says who asks.
//
//     node app.mjs tables
//     node app.mjs

import { withContext } from "bemi";
import { install } from "bemi/sequelize";
import { DataTypes, Sequelize } from "sequelize";

const sequelize = install(new Sequelize(process.env.DATABASE_URL, { logging: false }));

const plain = { timestamps: false, freezeTableName: true };
const Todo = sequelize.define(
  "todo",
  {
    task: { type: DataTypes.TEXT, allowNull: false },
    done: { type: DataTypes.BOOLEAN, defaultValue: false },
  },
  plain,
);
const Note = sequelize.define("note", { text: DataTypes.TEXT }, plain);

async function add(task) {
  await Todo.create({ task });
}

async function completeAll() {
  await sequelize.transaction(async (transaction) => {
    await Todo.update({ done: true }, { where: {}, transaction });
    await Note.create({ text: "all is done" }, { transaction });
  });
}

if (process.argv[2] === "tables") {
  await sequelize.sync();
} else {
  // Requests at once, over one pool.
  await Promise.all(
    ["ada", "bob", "cho"].map((user) =>
      withContext({ user_id: user, endpoint: "/todo", method: "POST" }, () => add(`call ${user}`)),
    ),
  );
  await withContext({ job: "nightly" }, completeAll);
}
await sequelize.close();
