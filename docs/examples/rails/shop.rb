# ActiveRecord as Rails uses it, in one process for all tenants: each is a shard of its own.
#
#   SHOP_DSN=postgresql://shop:SECRET@127.0.0.1:6432 ruby shop.rb migrate acme
#   SHOP_DSN=… ruby shop.rb order acme anvil
#
# In a Rails application `around_action` does what `within` does here, with the tenant of request.subdomain.
require 'active_record'
require 'uri'

# what Rails 7 does by itself: shards by class
ActiveRecord::Base.legacy_connection_handling = false if ActiveRecord.version < Gem::Version.new('7')

class ApplicationRecord < ActiveRecord::Base
  self.abstract_class = true
end

class Order < ApplicationRecord
end

class CreateOrders < ActiveRecord::Migration[6.1]
  def change
    create_table :orders do |t|
      t.text :item, null: false
      t.timestamps
    end
  end
end

module Tenancy
  NAME = /\A[a-z0-9_][a-z0-9_-]{0,62}\z/.freeze

  # The database's name says which tenant. The pool is small: the proxy keeps the backends.
  # Advisory locks that migrations take last longer than a transaction; so does what is prepared: both work.
  def self.within(tenant)
    raise ArgumentError, 'no name of a tenant' unless NAME.match?(tenant)

    url = URI(ENV.fetch('SHOP_DSN'))
    url.scheme = 'postgresql'
    url.path = "/#{tenant}"
    ApplicationRecord.connects_to(shards: { tenant.to_sym => { writing: { url: url.to_s, pool: 5 } } })
    ApplicationRecord.connected_to(role: :writing, shard: tenant.to_sym) { yield ApplicationRecord.connection }
  end
end

verb, tenant, item = ARGV
Tenancy.within(tenant) do |connection|
  if verb == 'migrate'
    ActiveRecord::Migration.verbose = false
    CreateOrders.new.exec_migration(connection, :up) unless connection.table_exists?(:orders)
  else
    Order.transaction do
      Order.create!(item: item)
      puts Order.order(:id).pluck(:item).join(' ')
    end
  end
end
