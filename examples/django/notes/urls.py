from django.urls import path

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("notes/", views.notes, name="notes"),
    path("api/request", views.api_request, name="api-request"),
    path("boom", views.boom, name="boom"),
]
