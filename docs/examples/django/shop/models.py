from django.db import models


class Order(models.Model):
    item = models.TextField()
    ordered_at = models.DateTimeField(auto_now_add=True)
