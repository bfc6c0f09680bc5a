// Sequelize: its transactions are functions, a nested one is a savepoint.

import { install } from "bemi/sequelize";
import { DataTypes, QueryTypes, Sequelize } from "sequelize";

import { Database, lists, numbered } from "../library.mjs";

export class Library extends Database {
  async connect({ dbname, user, ...address }, max) {
    const given = { ...address, username: user, database: dbname };
    return new Sequelize({ dialect: "postgres", logging: false, pool: { max, min: 0 }, ...given });
  }

  install(options) {
    install(this.database, options);
  }

  disconnect() {
    return this.database.close();
  }

  begin(parent, run, nested) {
    return this.database.transaction(nested ? { transaction: parent } : {}, run);
  }

  async query(on, statement, parameters) {
    const transaction = on === this.database ? undefined : on;
    const text = numbered(statement, parameters.length);
    const bind = parameters.length ? { bind: parameters } : {};
    const options = { transaction, type: QueryTypes.RAW, ...bind };
    const [rows, result] = await this.database.query(text, options);
    // Of an INSERT it tells only how many there were.
    if (typeof result === "number") return { rows: rows.map(Object.values), count: result };
    return { rows: lists(result), count: result.rowCount };
  }

  async models() {
    const { database } = this;
    const columns = { task: DataTypes.TEXT, n: DataTypes.INTEGER };
    const Todo = database.define("todo", columns, { tableName: "todo", timestamps: false });
    const one = await Todo.create({ task: "one" });
    await Todo.bulkCreate([{ task: "two" }, { task: "three" }]);
    await one.update({ n: 1 });
    await Todo.upsert({ id: one.id, task: "again" });
    await Todo.findOrCreate({ where: { task: "four" } });
    await Todo.update({ n: 2 }, { where: { task: "two" } });
    await Todo.increment("n", { where: { task: "two" } });
    await database.transaction(async (outer) => {
      await Todo.create({ task: "seven" }, { transaction: outer });
      const nested = database.transaction({ transaction: outer }, async (inner) => {
        await Todo.create({ task: "lost" }, { transaction: inner });
        throw new Error("lost");
      });
      await nested.catch(() => undefined);
      await Todo.create({ task: "eight" }, { transaction: outer });
    });
    await Todo.destroy({ where: { task: "two" } });
    await one.destroy();
    return (await Todo.findAll({ order: ["id"] })).map((todo) => todo.task);
  }
}
