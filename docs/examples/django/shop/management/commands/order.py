"""manage.py order TENANT ITEM: as a customer would, without a web server; prints the tenant's orders."""

from django.core.management.base import BaseCommand
from django.test import Client


class Command(BaseCommand):
    requires_system_checks = []

    def add_arguments(self, parser):
        parser.add_argument("tenant")
        parser.add_argument("item")

    def handle(self, *args, tenant, item, **options):
        client = Client(headers={"host": f"{tenant}.localhost"})
        answer = client.post("/orders", {"item": item})
        self.stdout.write(" ".join(answer.json()["orders"]))
