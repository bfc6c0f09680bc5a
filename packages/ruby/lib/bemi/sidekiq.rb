# frozen_string_literal: true

require "sidekiq"
require "socket"
require "bemi"

module Bemi
  # Jobs of Sidekiq have the context of who asked for them; `job`, the name of their class, and
  # `worker` are laid over it.
  module Sidekiq
    MEMBER = "bemi"
    private_constant :MEMBER

    # To be called where Sidekiq is configured, in clients and in the server, which asks for jobs
    # itself.
    def self.install
      ::Sidekiq.configure_client { |config| config.client_middleware { |chain| chain.add(Client) } }
      ::Sidekiq.configure_server do |config|
        config.client_middleware { |chain| chain.add(Client) }
        # Around all others, so that what they write has it.
        config.server_middleware { |chain| chain.prepend(Server) }
      end
    end

    # Puts the context into a job. One that comes back from the schedule, where there is none, keeps
    # its own.
    class Client
      def call(_job_class, job, _queue, _redis_pool)
        headers = Tracing.job_headers
        job[MEMBER] = headers unless headers.empty?
        yield
      end
    end

    # Runs a job in its context.
    class Server
      def call(_instance, job, _queue, &block)
        name = job["wrapped"] || job["class"]
        worker = "#{Socket.gethostname}:#{Process.pid}"
        values = Tracing.job_context(job[MEMBER], job: name.to_s, worker: worker)
        Current.replaced_by(values, &block)
      end
    end
  end
end
