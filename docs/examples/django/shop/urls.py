from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from shop.models import Order


@csrf_exempt
def orders(request):
    """Nothing here knows of tenants."""
    if request.method == "POST":
        Order.objects.create(item=request.POST["item"])
    return JsonResponse({"orders": list(Order.objects.order_by("id").values_list("item", flat=True))})


urlpatterns = [path("orders", orders)]
