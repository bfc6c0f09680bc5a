# frozen_string_literal: true

require "socket"
require "bemi"

module Bemi
  # Jobs of Active Job have the context of who asked for them, whatever runs their queue; `job`, the
  # name of its class, and `worker` are laid over it.
  #
  #     class ApplicationJob < ActiveJob::Base
  #       include Bemi::ActiveJob
  #     end
  #
  # `bemi/rails` includes it in ActiveJob::Base.
  module ActiveJob
    MEMBER = "bemi"
    private_constant :MEMBER

    # A job that is asked for where there is no context, as one that a queue has try again, keeps
    # what it came with.
    def serialize
      headers = Tracing.job_headers
      headers = @bemi_headers || {} if headers.empty?
      headers.empty? ? super : super.merge(MEMBER => headers)
    end

    def deserialize(job_data)
      super
      @bemi_headers = job_data[MEMBER]
      @bemi_deserialized = true
    end

    # Called in place, a job is in the context of its caller, and in no worker but that one's.
    def perform_now
      return Bemi.with_context(job: self.class.name) { super } unless @bemi_deserialized

      worker = "#{Socket.gethostname}:#{Process.pid}"
      values = Tracing.job_context(@bemi_headers, job: self.class.name, worker: worker)
      Current.replaced_by(values) { super }
    end
  end
end
