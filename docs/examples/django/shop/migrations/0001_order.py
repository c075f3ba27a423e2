from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            "Order",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("item", models.TextField()),
                ("ordered_at", models.DateTimeField(auto_now_add=True)),
            ],
        )
    ]
