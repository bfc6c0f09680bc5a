# frozen_string_literal: true

module Bemi
  module PG
    # What is added to a connection. What a method does besides is the `Exchange`'s to know; what
    # the library calls inside of its own methods passes through.
    module Sending
      # The names under which ruby-pg has each of its methods.
      def self.variants(name)
        [name, "async_#{name}", "sync_#{name}"].select { |each| ::PG::Connection.method_defined?(each) }
      end
      private_class_method :variants

      [*variants("exec"), *%w[query async_query].select { |name| ::PG::Connection.method_defined?(name) }]
        .each do |name|
        class_eval <<~RUBY, __FILE__, __LINE__ + 1
          def #{name}(*args, &block)
            return super if @bemi.inside?

            if args.size == 1
              @bemi.simple(args[0], block) { super(*args, &nil) }
            else
              @bemi.extended(args, block) { super(*args, &nil) }
            end
          end
        RUBY
      end

      { "exec_params" => :extended, "exec_prepared" => :prepared }.each do |base, kind|
        variants(base).each do |name|
          class_eval <<~RUBY, __FILE__, __LINE__ + 1
            def #{name}(*args, &block)
              @bemi.inside? ? super : @bemi.#{kind}(args, block) { super(*args, &nil) }
            end
          RUBY
        end
      end

      {
        "send_query" => :send_simple, "send_query_params" => :send_extended,
        "send_query_prepared" => :send_prepared, "send_prepare" => :send_prepare,
        "send_describe_prepared" => :send_other, "send_describe_portal" => :send_other
      }.each do |name, kind|
        class_eval <<~RUBY, __FILE__, __LINE__ + 1
          def #{name}(*args)
            @bemi.inside? ? super : @bemi.#{kind}(args) { super(*args, &nil) }
          end
        RUBY
      end

      variants("prepare").each do |name|
        class_eval <<~RUBY, __FILE__, __LINE__ + 1
          def #{name}(*args, &block)
            @bemi.inside? ? super : @bemi.prepare(args, block) { super(*args, &nil) }
          end
        RUBY
      end

      variants("get_result").each do |name|
        class_eval <<~RUBY, __FILE__, __LINE__ + 1
          def #{name}(&block)
            @bemi.waiting? ? @bemi.given(@bemi.next_result, block) : super
          end
        RUBY
      end

      variants("get_last_result").each do |name|
        class_eval <<~RUBY, __FILE__, __LINE__ + 1
          def #{name}
            @bemi.waiting? ? @bemi.last_result : super
          end
        RUBY
      end

      variants("put_copy_end").each do |name|
        class_eval <<~RUBY, __FILE__, __LINE__ + 1
          def #{name}(*args)
            @bemi.inside? ? super : @bemi.copied { super(*args, &nil) }
          end
        RUBY
      end

      variants("get_copy_data").each do |name|
        class_eval <<~RUBY, __FILE__, __LINE__ + 1
          def #{name}(*args)
            @bemi.inside? ? super : @bemi.copying { super(*args, &nil) }
          end
        RUBY
      end

      # What asks the server something besides.
      others = %w[describe_prepared describe_portal set_client_encoding encrypt_password]
               .flat_map { |name| variants(name) }
      others += %w[discard_results client_encoding= internal_encoding=]
      others += ::PG::Connection.instance_methods(false).grep(/\Alo_?[a-z]+\z/)
      others.each do |name|
        class_eval <<~RUBY, __FILE__, __LINE__ + 1
          def #{name}(*args)
            @bemi.settle unless @bemi.inside?
            super
          end
        RUBY
      end

      [*variants("reset"), "reset_start"].each do |name|
        class_eval <<~RUBY, __FILE__, __LINE__ + 1
          def #{name}(*args)
            @bemi.reconnecting
            super
          end
        RUBY
      end

      def error_message
        @bemi.told || super
      end

      def is_busy
        @bemi.inside? ? super : @bemi.busy? { super }
      end

      %w[set_single_row_mode set_chunked_rows_mode].each do |name|
        next unless ::PG::Connection.method_defined?(name)

        class_eval <<~RUBY, __FILE__, __LINE__ + 1
          def #{name}(*args)
            @bemi.at_statement
            super
          end
        RUBY
      end

      if ::PG::Connection.method_defined?(:enter_pipeline_mode)
        def enter_pipeline_mode
          @bemi.inside? ? super : @bemi.enter_pipeline { super }
        end

        def exit_pipeline_mode
          super.tap { @bemi.exit_pipeline unless @bemi.inside? }
        end

        [*variants("pipeline_sync"), *%w[send_pipeline_sync]].each do |name|
          next unless ::PG::Connection.method_defined?(name)

          class_eval <<~RUBY, __FILE__, __LINE__ + 1
            def #{name}(*args)
              super.tap { @bemi.synced unless @bemi.inside? }
            end
          RUBY
        end
      end
    end
  end
end
